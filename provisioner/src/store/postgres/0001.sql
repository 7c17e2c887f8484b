-- The machines of several hosts. Records are JSON, so that fields of other versions survive; what two hosts must never share
-- stands in columns with constraints, so that the server decides every race.

CREATE TABLE blockhost.pool (
    -- One row: whoever allocates locks it, so that two allocations never choose from the same free numbers.
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    next_vmid integer NOT NULL DEFAULT 0
);
INSERT INTO blockhost.pool DEFAULT VALUES;

CREATE TABLE blockhost.machine (
    name text PRIMARY KEY,
    record jsonb NOT NULL CHECK ((record->>'vm_name' = name AND record->>'status' IN ('active', 'suspended', 'destroyed')) IS TRUE)
);
CREATE INDEX machine_status ON blockhost.machine ((record->>'status'));

CREATE TABLE blockhost.reservation (
    name text PRIMARY KEY,
    record jsonb NOT NULL CHECK ((record->>'name' = name) IS TRUE)
);

-- What is given out: one row for each machine that is not destroyed and each reservation. Without a name: addresses that an
-- imported database held back for nobody.
CREATE TABLE blockhost.holding (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text UNIQUE,
    vmid integer UNIQUE CHECK (vmid BETWEEN 100 AND 999999),
    ip inet UNIQUE CHECK (family(ip) = 4 AND masklen(ip) = 32),
    ipv6 inet UNIQUE CHECK (family(ipv6) = 6 AND masklen(ipv6) = 128)
);

CREATE TABLE blockhost.token (
    token numeric(20) PRIMARY KEY CHECK (token >= 0 AND token <= 18446744073709551615),
    record jsonb NOT NULL CHECK ((record->>'status' IN ('reserved', 'minted', 'failed')) IS TRUE)
);

-- LISTEN blockhost: the name of a machine whose record or reservation has changed, after the change.
CREATE FUNCTION blockhost.notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('blockhost', CASE TG_OP WHEN 'DELETE' THEN OLD.name ELSE NEW.name END);
    RETURN NULL;
END
$$;
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON blockhost.machine
    FOR EACH ROW EXECUTE FUNCTION blockhost.notify();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON blockhost.reservation
    FOR EACH ROW EXECUTE FUNCTION blockhost.notify();
