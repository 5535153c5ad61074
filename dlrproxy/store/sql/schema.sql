-- The rows of one node, pair or cluster, in a schema of their own. `dlrproxy db init` runs this; every statement may be repeated.

-- An MT with an id and no final report yet. Times are seconds since 1970; `form` is the id's normal form.
CREATE TABLE IF NOT EXISTS open_messages (
    operator     VARBINARY(255)  NOT NULL,
    message_id   VARBINARY(255)  NOT NULL,
    form         VARBINARY(255)  NOT NULL,
    owner        VARBINARY(255)  NOT NULL,
    destination  VARBINARY(255)  NOT NULL,
    source       VARBINARY(255)  NOT NULL,
    session      BIGINT UNSIGNED NOT NULL,
    submitted_at DOUBLE          NOT NULL,
    expires_at   DOUBLE          NOT NULL,
    final_at     DOUBLE          NOT NULL,
    PRIMARY KEY (operator, message_id),
    KEY by_form (operator, form),
    KEY by_expiry (expires_at)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC;

-- Custody, parked items, and what a node remembers of itself. One table, so that one statement moves a row from one kind
-- to another, or from one node to another. In a cluster (quorum) each node has a partition, named by `node`; the nodes of
-- a pair share the one that has no name. Without content a row counts as deleted; it is removed soon.
CREATE TABLE IF NOT EXISTS items (
    node    VARBINARY(255) NOT NULL,
    kind    VARBINARY(16)  NOT NULL,
    name    VARBINARY(255) NOT NULL,
    content LONGBLOB       NULL,
    PRIMARY KEY (node, kind, name)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC;

-- Of an active-passive pair: one row, which says who was promoted last, and that it is there. `beat` counts up while it
-- serves; `alone` says whether it may do so without a replica.
CREATE TABLE IF NOT EXISTS pair (
    id     TINYINT UNSIGNED NOT NULL PRIMARY KEY,
    epoch  BIGINT UNSIGNED  NOT NULL,
    holder VARBINARY(255)   NOT NULL,
    beat   BIGINT UNSIGNED  NOT NULL,
    alone  VARBINARY(16)    NOT NULL
) ENGINE=InnoDB;

-- Of a quorum: the lease of each node on its own part of custody. `epoch` counts its terms of service and takeovers, `beat`
-- counts up while it is there; `home` is the id of its data directory. Once it is `taken`, its rows go to `heir`, and
-- `moved` counts up.
CREATE TABLE IF NOT EXISTS members (
    node  VARBINARY(255)   NOT NULL PRIMARY KEY,
    epoch BIGINT UNSIGNED  NOT NULL,
    beat  BIGINT UNSIGNED  NOT NULL,
    home  VARBINARY(32)    NOT NULL,
    taken TINYINT UNSIGNED NOT NULL,
    heir  VARBINARY(255)   NOT NULL,
    moved BIGINT UNSIGNED  NOT NULL
) ENGINE=InnoDB;

-- Of a quorum: one row, the lease of its master.
CREATE TABLE IF NOT EXISTS lease (
    id     TINYINT UNSIGNED NOT NULL PRIMARY KEY,
    epoch  BIGINT UNSIGNED  NOT NULL,
    holder VARBINARY(255)   NOT NULL,
    beat   BIGINT UNSIGNED  NOT NULL
) ENGINE=InnoDB;

-- One row: the newest migration that was applied, and the oldest version whose programs can work with the schema as it is.
CREATE TABLE IF NOT EXISTS schema_version (
    id              TINYINT UNSIGNED NOT NULL PRIMARY KEY,
    version         INT UNSIGNED     NOT NULL,
    compatible_from INT UNSIGNED     NOT NULL
) ENGINE=InnoDB;
