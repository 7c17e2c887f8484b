-- The hosts that share these machines. What a record calls its host has to be one host: whoever else came by the same name
-- would take the other's machines for its own. A host that was given up does nothing here any more until it returns.

CREATE TABLE blockhost.host (
    node text PRIMARY KEY,
    host_name text NOT NULL,
    machine_id text NOT NULL,
    seen timestamptz NOT NULL DEFAULT now(),
    given_up timestamptz
);
