-- what the first version made of an empty file, and what it wrote
PRAGMA journal_mode = WAL;
CREATE TABLE user (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    profile TEXT,
    profile_at INTEGER NOT NULL,
    preferences TEXT,
    preferences_at INTEGER NOT NULL,
    changed_by TEXT NOT NULL,
    changed_from TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
CREATE TABLE preferences_change (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    at INTEGER NOT NULL,
    changed_by TEXT NOT NULL,
    changed_from TEXT NOT NULL,
    preferences TEXT NOT NULL
) STRICT;
CREATE INDEX preferences_change_by_user ON preferences_change (tenant, user, at);
INSERT INTO user VALUES ('acme', 'ana', '{"contacts":{"webhook":["https://a.example/x"]}}', 1790000000000000, '{}', 0, 'ops', 'http');
PRAGMA user_version = 1;
