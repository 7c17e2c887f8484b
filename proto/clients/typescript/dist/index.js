export * from "./actions.js";
export { errorCodes, timeLimitsS } from "./catalog.js";
export {
  RootAgentClient,
  RootAgentConnectionError,
  RootAgentError,
  RootAgentTimeoutError,
  callRootAgent,
} from "./transport.js";
