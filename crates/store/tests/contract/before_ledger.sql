-- what the first version made of an empty file, and what it wrote
PRAGMA journal_mode = WAL;
CREATE TABLE claim (
    delivery BLOB PRIMARY KEY,
    owner BLOB NOT NULL,
    at INTEGER NOT NULL,
    kept_from INTEGER NOT NULL,
    settled BLOB
) STRICT;
CREATE INDEX claim_by_age ON claim (kept_from);
INSERT INTO claim VALUES (x'00000000000000000000000000000001', x'00000000000000000000000000000002', 1790000000000000, unixepoch() * 1000000, CAST('sent' AS BLOB));
PRAGMA user_version = 1;
