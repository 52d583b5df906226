-- The catalogue: what the shop sells, and the numbers that let a conditional request be answered without reading it.
-- Migrations go forward only: a file that has been released is never edited, a mistake is mended by the next file.

CREATE TABLE categories (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slug       text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$' AND length(slug) <= 120),
    name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    position   integer NOT NULL DEFAULT 0,
    version    bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN categories.position IS 'Order in menus, ascending.';
COMMENT ON COLUMN categories.version IS 'Raised by a trigger with every change; part of the entity tags of its products.';

CREATE TABLE products (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    category_id bigint NOT NULL REFERENCES categories (id),
    slug        text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$' AND length(slug) <= 120),
    name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    description text NOT NULL DEFAULT '' CHECK (length(description) <= 10000),
    price_cents bigint NOT NULL CHECK (price_cents BETWEEN 0 AND 1000000000),
    currency    text NOT NULL DEFAULT 'EUR' CHECK (currency ~ '^[A-Z]{3}$'),
    stock       integer NOT NULL DEFAULT 0 CHECK (stock >= 0),
    image       text CHECK (image ~ '^[a-z0-9-]+$'),
    active      boolean NOT NULL DEFAULT true,
    version     bigint NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    searchable  tsvector NOT NULL GENERATED ALWAYS AS (
        setweight(to_tsvector('english'::regconfig, name), 'A')
        || setweight(to_tsvector('english'::regconfig, description), 'B')
    ) STORED
);
COMMENT ON COLUMN products.price_cents IS 'Integer hundredths of the currency; never a fraction.';
COMMENT ON COLUMN products.stock IS 'Pieces that can be sold now. The check constraint is the last line against overselling.';
COMMENT ON COLUMN products.image IS 'Stem of one of the storefront''s images, without folder, hash and extension.';
COMMENT ON COLUMN products.active IS 'False: no longer offered. Rows stay, because order lines point at them.';
COMMENT ON COLUMN products.version IS
    'Raised by a trigger when anything changes but the stock, and when the stock runs out or comes back.';

-- Named by the guide: the foreign key, and the rows no longer offered.
CREATE INDEX products_category_id_idx ON products (category_id);
CREATE INDEX products_active_idx ON products (active);

-- One index for each sort of the list, with the id that makes the order total, for the whole shop and within a category.
-- Descending sorts walk them backwards. The ones by category also count a category's products.
CREATE INDEX products_newest_idx ON products (created_at, id) WHERE active;
CREATE INDEX products_price_idx ON products (price_cents, id) WHERE active;
CREATE INDEX products_name_idx ON products (name COLLATE "C", id) WHERE active;
CREATE INDEX products_category_newest_idx ON products (category_id, created_at, id) WHERE active;
CREATE INDEX products_category_price_idx ON products (category_id, price_cents, id) WHERE active;
CREATE INDEX products_category_name_idx ON products (category_id, name COLLATE "C", id) WHERE active;

CREATE INDEX products_searchable_idx ON products USING gin (searchable) WHERE active;

-- One row. `version` changes in the transaction that changes what a list can show, so whoever reads the two in one
-- statement sees them agree. A sequence would not do: it moves before its transaction is visible.
CREATE TABLE catalogue_state (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch    text NOT NULL DEFAULT substr(gen_random_uuid()::text, 1, 8),
    version  bigint NOT NULL DEFAULT 1
);
COMMENT ON COLUMN catalogue_state.epoch IS
    'Differs between databases, so that a validator given out by an older one never matches this one.';
INSERT INTO catalogue_state DEFAULT VALUES;
-- Every list joins it: without statistics the planner takes it for a thousand rows.
ANALYZE catalogue_state;

CREATE FUNCTION raise_row_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    RETURN NEW;
END
$$;

CREATE FUNCTION touch_product() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

CREATE TRIGGER categories_version BEFORE UPDATE ON categories
    FOR EACH ROW WHEN (ROW (OLD.slug, OLD.name, OLD.position) IS DISTINCT FROM ROW (NEW.slug, NEW.name, NEW.position))
    EXECUTE FUNCTION raise_row_version();

-- A sale that leaves some stock changes no list and no cached page: it must stay cheap.
CREATE TRIGGER products_version BEFORE UPDATE ON products
    FOR EACH ROW WHEN (
        ROW (OLD.category_id, OLD.slug, OLD.name, OLD.description, OLD.price_cents, OLD.currency, OLD.image, OLD.active,
             OLD.created_at)
        IS DISTINCT FROM
        ROW (NEW.category_id, NEW.slug, NEW.name, NEW.description, NEW.price_cents, NEW.currency, NEW.image, NEW.active,
             NEW.created_at)
        OR (OLD.stock > 0) <> (NEW.stock > 0)
    )
    EXECUTE FUNCTION touch_product();

-- Runs at commit (the triggers below are deferred): the lock on the one row is the last a transaction takes, so two orders
-- that each empty a shelf cannot wait for one another in a circle. The setting makes it once a transaction.
CREATE FUNCTION raise_catalogue_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('gatehouse.catalogue_raised', true) IS DISTINCT FROM 'yes' THEN
        UPDATE catalogue_state SET version = version + 1;
        PERFORM set_config('gatehouse.catalogue_raised', 'yes', true);
    END IF;
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER products_come_and_go AFTER INSERT OR DELETE ON products
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION raise_catalogue_version();
CREATE CONSTRAINT TRIGGER products_change AFTER UPDATE ON products
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.version <> NEW.version)
    EXECUTE FUNCTION raise_catalogue_version();
CREATE CONSTRAINT TRIGGER categories_come_and_go AFTER INSERT OR DELETE ON categories
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION raise_catalogue_version();
CREATE CONSTRAINT TRIGGER categories_change AFTER UPDATE ON categories
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.version <> NEW.version)
    EXECUTE FUNCTION raise_catalogue_version();
