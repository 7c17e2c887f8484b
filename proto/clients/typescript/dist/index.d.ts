export * from "./actions.js";
export * from "./catalog.js";
export {
  RootAgentClient,
  RootAgentConnectionError,
  RootAgentError,
  RootAgentTimeoutError,
  callRootAgent,
} from "./transport.js";
export type { CallOptions, ClientOptions, Params, Receipt, Reply, Refusal } from "./transport.js";
