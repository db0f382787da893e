"""SQL of every statement that writes, as SQLAlchemy Core compiles it: made from `core.py` by
`scripts/generate-statements`, not by hand. Parameters are named."""

NEXT_SERIAL = """UPDATE root SET serial=(root.serial + 1) RETURNING serial"""
PUT_STACK = """INSERT INTO stacks (name, origin, source, serial, revision, hold) VALUES (:name, :origin, :source, :serial,
:revision, :hold) ON CONFLICT (name) DO UPDATE SET origin = excluded.origin, source = excluded.source, revision =
excluded.revision, hold = excluded.hold"""
MARK_STACK = """UPDATE stacks SET serial=:new_serial WHERE stacks.name = :stack"""
DELETE_STACK = """DELETE FROM stacks WHERE stacks.name = :stack"""
PUT_RECORD = """INSERT INTO records ("key", stack, image, incarnation, created_at, serial, spec, grants, status) VALUES
(:key, :stack, :image, :incarnation, :created_at, :serial, :spec, :grants, :status) ON CONFLICT ("key") DO UPDATE SET image
= excluded.image, incarnation = excluded.incarnation, created_at = excluded.created_at, serial = excluded.serial, spec =
excluded.spec, grants = excluded.grants, status = excluded.status"""
PUT_STATUS = """UPDATE records SET status=:new_status WHERE records."key" = :of_key"""
DELETE_RECORD = """DELETE FROM records WHERE records."key" = :of_key"""
PUT_HOLD = """INSERT INTO holds ("key", kind, who, at, why) VALUES (:key, :kind, :who, :at, :why) ON CONFLICT ("key") DO
UPDATE SET kind = excluded.kind, who = excluded.who, at = excluded.at, why = excluded.why"""
DELETE_HOLD = """DELETE FROM holds WHERE holds."key" = :of_key"""
PUT_GRANT = """INSERT INTO grants (pool, scope, value, owner) VALUES (:pool, :scope, :value, :owner)"""
DELETE_GRANT = """DELETE FROM grants WHERE grants.pool = :of_pool AND grants.scope = :of_scope AND grants.value =
:of_value"""
WITHDRAW_GRANTS = """DELETE FROM grants WHERE grants.owner = :of_owner AND (grants.pool NOT IN ('address', 'mac',
'reserved'))"""
END_RESERVATIONS_OF_VOLUME = """DELETE FROM grants WHERE grants.pool = 'reserved' AND grants.scope = :volume"""
END_RESERVATIONS_OF_OWNERS = """DELETE FROM grants WHERE grants.pool = 'reserved' AND (grants.owner GLOB :owners)"""
END_RESERVATIONS_ON_NETWORK = """DELETE FROM grants WHERE grants.pool = 'reserved' AND grants.owner = :of_owner AND
(grants.value GLOB :places)"""
FREE_ADDRESSES = """DELETE FROM grants WHERE grants.pool = 'address' AND grants.owner = :of_owner AND grants.scope =
:network"""
PASS_ON_GRANTS = """UPDATE grants SET owner=:to WHERE grants.owner = :of_owner"""
PASS_ON_RESERVATIONS = """UPDATE grants SET scope=:to WHERE grants.pool = 'reserved' AND grants.scope = :volume"""
PUT_INTENT = """INSERT INTO intents ("key", stack, verb, image, data) VALUES (:key, :stack, :verb, :image, :data)"""
DELETE_INTENT = """DELETE FROM intents WHERE intents.id = :of_id"""
DELETE_INTENTS_OF = """DELETE FROM intents WHERE intents."key" = :of_key AND intents.verb = :of_verb"""
LAST_REVISION = """SELECT max(revisions.number) AS max_1 FROM revisions WHERE revisions.stack = :of_stack"""
PUT_REVISION = """INSERT INTO revisions (stack, number, at, who, source, summary, wanted, result) VALUES (:stack, :number,
:at, :who, :source, :summary, :wanted, :result)"""
PUT_REVISION_IMAGE = """INSERT INTO revision_images (stack, number, "key", digest) VALUES (:stack, :number, :key,
:digest)"""
DELETE_REVISION = """DELETE FROM revisions WHERE revisions.stack = :of_stack AND revisions.number = :of_number"""
FINISH_REVISION = """UPDATE revisions SET result=:new_result WHERE revisions.stack = :of_stack AND revisions.number =
:of_number"""
PUT_LEASE = """INSERT INTO leases (digest, name) VALUES (:digest, :name) ON CONFLICT DO NOTHING"""
DELETE_LEASE = """DELETE FROM leases WHERE leases.digest = :of_digest AND leases.name = :of_name"""
DELETE_LEASES = """DELETE FROM leases WHERE leases.digest = :of_digest"""
PUT_CONTENT = """INSERT INTO contents (digest, data) VALUES (:digest, :data) ON CONFLICT DO NOTHING"""
DELETE_CONTENT = """DELETE FROM contents WHERE contents.digest = :of_digest"""
PUT_EVENT = """INSERT INTO events (at, stack, "key", data) VALUES (:at, :stack, :key, :data)"""
TRIM_EVENTS = """DELETE FROM events WHERE events.id <= (SELECT max(events.id) AS max_1 FROM events) - :kept"""
SHRINK_EVENTS = """DELETE FROM events WHERE events.id <= (SELECT max(anon_1.id) AS max_1 FROM (SELECT events.id AS id,
sum(length(events.data)) OVER (ORDER BY events.id DESC) AS total FROM events) AS anon_1 WHERE anon_1.total > :size) AND
events.id < (SELECT min(events.id) AS min_1 FROM events) + :most AND events.id < (SELECT max(events.id) AS max_2 FROM
events)"""
AGE_EVENTS = """DELETE FROM events WHERE events.id < (SELECT min(events.id) AS min_1 FROM events) + :most AND events.at <
:oldest"""

CREATE = (
    """CREATE TABLE contents ( digest TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (digest) )""",
    """CREATE TABLE events ( id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, at FLOAT NOT NULL, stack TEXT NOT NULL, "key"
TEXT NOT NULL, data BLOB NOT NULL )""",
    """CREATE INDEX ix_events_stack ON events (stack, id)""",
    """CREATE TABLE grants ( pool TEXT NOT NULL, scope TEXT NOT NULL, value TEXT NOT NULL, owner TEXT NOT NULL, PRIMARY KEY
(pool, scope, value) ) WITHOUT ROWID""",
    """CREATE INDEX ix_grants_owner ON grants (owner)""",
    """CREATE TABLE intents ( id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "key" TEXT NOT NULL, stack TEXT NOT NULL, verb
TEXT NOT NULL, image TEXT NOT NULL, data BLOB NOT NULL )""",
    """CREATE INDEX ix_intents_stack ON intents (stack)""",
    """CREATE TABLE leases ( digest TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (digest, name) ) WITHOUT ROWID""",
    """CREATE TABLE root ( id INTEGER NOT NULL, serial INTEGER NOT NULL, PRIMARY KEY (id) )""",
    """CREATE TABLE stacks ( name TEXT NOT NULL, origin TEXT NOT NULL, source TEXT NOT NULL, serial INTEGER NOT NULL,
revision INTEGER NOT NULL, hold BLOB DEFAULT '' NOT NULL, PRIMARY KEY (name) ) WITHOUT ROWID""",
    """CREATE TABLE records ( "key" TEXT NOT NULL, stack TEXT NOT NULL, image TEXT NOT NULL, incarnation TEXT NOT NULL,
created_at FLOAT NOT NULL, serial INTEGER NOT NULL, spec BLOB NOT NULL, grants BLOB NOT NULL, status BLOB NOT NULL, PRIMARY
KEY ("key"), FOREIGN KEY(stack) REFERENCES stacks (name) )""",
    """CREATE INDEX ix_records_stack ON records (stack)""",
    """CREATE TABLE revisions ( stack TEXT NOT NULL, number INTEGER NOT NULL, at FLOAT NOT NULL, who TEXT NOT NULL, source
TEXT NOT NULL, summary BLOB NOT NULL, wanted BLOB NOT NULL, result TEXT NOT NULL, PRIMARY KEY (stack, number), FOREIGN
KEY(stack) REFERENCES stacks (name) ON DELETE CASCADE )""",
    """CREATE TABLE holds ( "key" TEXT NOT NULL, kind TEXT NOT NULL, who TEXT NOT NULL, at FLOAT NOT NULL, why TEXT NOT
NULL, PRIMARY KEY ("key"), FOREIGN KEY("key") REFERENCES records ("key") ON DELETE CASCADE ) WITHOUT ROWID""",
    """CREATE TABLE revision_images ( stack TEXT NOT NULL, number INTEGER NOT NULL, "key" TEXT NOT NULL, digest TEXT NOT
NULL, PRIMARY KEY (stack, number, "key"), FOREIGN KEY(stack, number) REFERENCES revisions (stack, number) ON DELETE CASCADE
) WITHOUT ROWID""",
)
"""All tables and indexes, of an empty database."""
