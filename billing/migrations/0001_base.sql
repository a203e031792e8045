-- One text for SQLite and PostgreSQL: BIGINT for counts, money in cents and instants in Unix ms; TEXT for ids,
-- JSON and hex. NULL is "none" or "unlimited", never 0. Every later migration is a file of its own.

-- One row: which life of this database it is, and the last policy revision given out.
CREATE TABLE revision (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    epoch TEXT NOT NULL,
    rev BIGINT NOT NULL
);

-- The last change of each subject of a policy (tenant:ID, agent:ID): the outbox of the policy sync.
CREATE TABLE policy_changes (
    rev BIGINT PRIMARY KEY,
    subject TEXT NOT NULL UNIQUE,
    op TEXT NOT NULL,
    at BIGINT NOT NULL
);

-- Every change by anybody, in a chain of hashes.
CREATE TABLE audit (
    seq BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    request_id TEXT NOT NULL,
    before_json TEXT,
    after_json TEXT,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE INDEX audit_by_object ON audit (object, seq);

-- Answers to writes that came with an Idempotency-Key, for a day. They may hold a key's secret, so they are sealed.
CREATE TABLE idempotency (
    actor TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    status BIGINT NOT NULL,
    answer_sealed TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (actor, key)
);
CREATE INDEX idempotency_by_age ON idempotency (at);

CREATE TABLE tenants (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    email TEXT,
    country TEXT,
    status TEXT NOT NULL,
    -- Where its months begin.
    anchor_at BIGINT NOT NULL,
    shadow_json TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT
);

CREATE TABLE plans (
    code TEXT NOT NULL,
    version BIGINT NOT NULL,
    family TEXT NOT NULL,
    body_json TEXT NOT NULL,
    author TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (code, version)
);

-- The plan a tenant holds, or held, in a family.
CREATE TABLE subscriptions (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    family TEXT NOT NULL,
    plan_code TEXT NOT NULL,
    plan_version BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at BIGINT,
    FOREIGN KEY (plan_code, plan_version) REFERENCES plans (code, version)
);
CREATE UNIQUE INDEX subscriptions_one_a_family ON subscriptions (tenant_id, family) WHERE ended_at IS NULL;

-- What a contract changes on top of the plans: one row a limit.
CREATE TABLE overrides (
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    path TEXT NOT NULL,
    value_json TEXT NOT NULL,
    reason TEXT NOT NULL,
    author TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    until BIGINT,
    PRIMARY KEY (tenant_id, path)
);

CREATE TABLE api_keys (
    public_id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    label TEXT NOT NULL,
    live BIGINT NOT NULL,
    hash TEXT NOT NULL,
    previous_hash TEXT,
    previous_until BIGINT,
    -- Limits, shadow and models of the key alone.
    scope_json TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
);
CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id, public_id);

-- AI agents that channels may name. The gateways know the upstreams by name.
CREATE TABLE agents (
    id TEXT PRIMARY KEY,
    body_json TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE channels (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    url TEXT NOT NULL,
    account_id BIGINT NOT NULL,
    bot_id BIGINT NOT NULL,
    agent_id TEXT NOT NULL REFERENCES agents (id),
    handoff_json TEXT NOT NULL,
    secrets_sealed TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (tenant_id, name),
    UNIQUE (url, account_id, bot_id)
);
