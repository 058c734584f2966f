//! What `index.db` looks like, and how it came to that.

/// Times are in microseconds; `body` is the whole document: a status event as it travels, or the JSON that versions before wrote, as
/// text. `delivery_by_tenant` holds all that can be filtered by, so that a rare state is found without reading the documents in
/// between; the other one holds only what never changes, so that a step of a delivery leaves it alone. A delivery is known by its
/// notification, the time of that and its id, which lie in the order in which they come. `delivery_words` has a row for each
/// delivery, by `n`; `words_hash` is that of what it holds. `delivery_users` says which deliveries are a user's: FTS5 gathers what
/// comes and merges it later, where an index would write a page of its own for nearly every delivery. Its only word is
/// the user in hexadecimal, because FTS5 would take a name apart.
pub(super) const STEPS: &[&str] = &[
    "
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
",
    // a table whose numbers stay when the file is copied: `delivery_words` refers to them
    r#"
    ALTER TABLE notification ADD COLUMN recipients INTEGER NOT NULL DEFAULT 0;
    UPDATE notification SET recipients = json_extract(body, '$.recipients');
    CREATE INDEX notification_by_tenant ON notification (tenant, accepted_at, recipients);
    CREATE TABLE numbered (
        n INTEGER PRIMARY KEY,
        id BLOB NOT NULL UNIQUE,
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
        body TEXT NOT NULL,
        template TEXT,
        provider TEXT,
        leads INTEGER NOT NULL,
        words_hash INTEGER NOT NULL
    ) STRICT;
    INSERT INTO numbered SELECT rowid, *, NULL, NULL, 0, 0 FROM delivery;
    UPDATE numbered SET leads = 1 WHERE n IN
        (SELECT min(n) FROM numbered GROUP BY tenant, notification, json_extract(body, '$.recipient'));
    DROP TABLE delivery;
    ALTER TABLE numbered RENAME TO delivery;
    CREATE INDEX delivery_by_tenant ON delivery
        (tenant, accepted_at, id, state, reason, category, channel, provider, template, leads);
    CREATE INDEX delivery_by_user ON delivery
        (tenant, user, accepted_at, id, state, reason, category, channel, provider, template);
    CREATE INDEX delivery_by_notification ON delivery (tenant, notification, accepted_at, id);
    CREATE INDEX delivery_by_age ON delivery (updated_at);
    CREATE VIRTUAL TABLE delivery_words USING fts5
        (tenant, words, content='', contentless_delete=1, tokenize="unicode61 remove_diacritics 0 tokenchars '-'");
    CREATE TRIGGER delivery_forgotten AFTER DELETE ON delivery BEGIN
        DELETE FROM delivery_words WHERE rowid = OLD.n;
    END;
    INSERT INTO delivery_words (rowid, tenant, words) SELECT n, tenant, replace(concat_ws(' ',
        json_extract(body, '$.id'), json_extract(body, '$.notification'), user, category,
        (SELECT group_concat(value, ' ') FROM json_each(body, '$.metadata')),
        (SELECT group_concat(json_extract(value, '$.attempt.answer'), ' ') FROM json_each(body, '$.history'))
    ), '-', ' ') FROM delivery;
"#,
    "
    CREATE TABLE known (
        n INTEGER PRIMARY KEY,
        id BLOB NOT NULL,
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
        body TEXT NOT NULL,
        template TEXT,
        provider TEXT,
        leads INTEGER NOT NULL,
        words_hash INTEGER NOT NULL
    ) STRICT;
    INSERT INTO known SELECT * FROM delivery;
    DROP TRIGGER delivery_forgotten;
    DROP TABLE delivery;
    ALTER TABLE known RENAME TO delivery;
    CREATE UNIQUE INDEX delivery_by_notification ON delivery (notification, accepted_at, id);
    CREATE INDEX delivery_by_tenant ON delivery
        (tenant, accepted_at, id, state, reason, category, channel, provider, template, leads);
    CREATE INDEX delivery_by_user ON delivery (tenant, user, accepted_at, id) WHERE user IS NOT NULL;
    CREATE INDEX delivery_by_age ON delivery (updated_at);
    CREATE TRIGGER delivery_forgotten AFTER DELETE ON delivery BEGIN
        DELETE FROM delivery_words WHERE rowid = OLD.n;
    END;
",
    "
    CREATE TABLE compact (
        id BLOB PRIMARY KEY,
        tenant TEXT NOT NULL,
        accepted_at INTEGER NOT NULL,
        body ANY NOT NULL,
        recipients INTEGER NOT NULL
    ) STRICT;
    INSERT INTO compact SELECT id, tenant, accepted_at, body, recipients FROM notification ORDER BY accepted_at;
    DROP TABLE notification;
    ALTER TABLE compact RENAME TO notification;
    CREATE INDEX notification_by_tenant ON notification (tenant, accepted_at, recipients);
    CREATE TABLE compact (
        n INTEGER PRIMARY KEY,
        id BLOB NOT NULL,
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
        body ANY NOT NULL,
        template TEXT,
        provider TEXT,
        leads INTEGER NOT NULL,
        words_hash INTEGER NOT NULL
    ) STRICT;
    INSERT INTO compact SELECT * FROM delivery;
    DROP TRIGGER delivery_forgotten;
    DROP TABLE delivery;
    ALTER TABLE compact RENAME TO delivery;
    CREATE UNIQUE INDEX delivery_by_notification ON delivery (notification, accepted_at, id);
    CREATE INDEX delivery_by_tenant ON delivery
        (tenant, accepted_at, id, state, reason, category, channel, provider, template, leads);
    CREATE INDEX delivery_by_user ON delivery (tenant, user, accepted_at, id) WHERE user IS NOT NULL;
    CREATE TRIGGER delivery_forgotten AFTER DELETE ON delivery BEGIN
        DELETE FROM delivery_words WHERE rowid = OLD.n;
    END;
",
    "
    DROP INDEX delivery_by_user;
    CREATE VIRTUAL TABLE delivery_users USING fts5
        (user, content='', columnsize=0, detail=none, tokenize=ascii);
    INSERT INTO delivery_users (rowid, user)
        SELECT n, hex(tenant || ' ' || user) FROM delivery WHERE user IS NOT NULL ORDER BY n;
    DROP TRIGGER delivery_forgotten;
    CREATE TRIGGER delivery_forgotten AFTER DELETE ON delivery BEGIN
        DELETE FROM delivery_words WHERE rowid = OLD.n;
        INSERT INTO delivery_users (delivery_users, rowid, user)
            SELECT 'delete', OLD.n, hex(OLD.tenant || ' ' || OLD.user) WHERE OLD.user IS NOT NULL;
    END;
",
];
