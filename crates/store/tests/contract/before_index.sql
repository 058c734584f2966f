-- what the first version made of an empty file, and what it wrote
PRAGMA journal_mode = WAL;
CREATE TABLE notification (
    id BLOB PRIMARY KEY,
    tenant TEXT NOT NULL,
    accepted_at INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX notification_by_age ON notification (accepted_at);
CREATE TABLE delivery (
    id BLOB PRIMARY KEY,
    tenant TEXT NOT NULL,
    notification BLOB NOT NULL,
    user TEXT,
    channel TEXT NOT NULL,
    category TEXT,
    state TEXT NOT NULL,
    reason TEXT,
    accepted_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX delivery_by_tenant ON delivery (tenant, accepted_at, id, state, reason, category, channel);
CREATE INDEX delivery_by_user ON delivery (tenant, user, accepted_at, id, state, reason, category, channel);
CREATE INDEX delivery_by_notification ON delivery (tenant, notification, accepted_at, id);
CREATE INDEX delivery_by_age ON delivery (updated_at);
INSERT INTO notification VALUES (x'0000000000000000000000000000000a', 'acme', 1790000000000000,
    '{"kind":"notification","id":"00000000-0000-0000-0000-00000000000a","notification":"00000000-0000-0000-0000-00000000000a","tenant":"acme","recipients":1,"priority":5,"channels":["webhook"],"accepted_at":"2026-09-21T14:13:20.000000Z","updated_at":"2026-09-21T14:13:20.000000Z","metadata":{},"version":1}');
INSERT INTO delivery VALUES (x'0000000000000000000000000000000b', 'acme', x'0000000000000000000000000000000a', 'ana', 'webhook', NULL, 'sent', NULL, 1790000000000000, 1790000000000000, 1,
    '{"kind":"delivery","id":"00000000-0000-0000-0000-00000000000b","notification":"00000000-0000-0000-0000-00000000000a","tenant":"acme","user":"ana","recipient":"user:ana","channel":"webhook","address":"https://a.example/…","priority":5,"state":"sent","accepted_at":"2026-09-21T14:13:20.000000Z","updated_at":"2026-09-21T14:13:20.000000Z","metadata":{"order":"A-4711"},"version":1,"history":[{"at":"2026-09-21T14:13:20Z","state":"sent"}]}');
INSERT INTO delivery VALUES (x'0000000000000000000000000000000c', 'acme', x'0000000000000000000000000000000a', 'ana', 'webhook', NULL, 'failed', NULL, 1790000000000000, 1790000000000000, 1,
    '{"kind":"delivery","id":"00000000-0000-0000-0000-00000000000c","notification":"00000000-0000-0000-0000-00000000000a","tenant":"acme","user":"ana","recipient":"user:ana","channel":"webhook","address":"https://a.example/…","priority":5,"state":"failed","accepted_at":"2026-09-21T14:13:20.000000Z","updated_at":"2026-09-21T14:13:20.000000Z","metadata":{"order":"A-4711"},"version":1,"history":[{"at":"2026-09-21T14:13:20Z","state":"failed","attempt":{"number":1,"outcome":"rejected","answer":"503 Überlastet","took_ms":1}}]}');
PRAGMA user_version = 1;
