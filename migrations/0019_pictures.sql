-- Pictures that administrators have put in: WebP in three sizes, by the hash of what was sent. What a product's `image` names is one
-- of these or one of the storefront's own.

CREATE TABLE pictures (
    stem       text NOT NULL CHECK (stem ~ '^u-[0-9a-f]{20}$'),
    width      integer NOT NULL CHECK (width IN (160, 320, 640)),
    body       bytea NOT NULL CHECK (octet_length(body) BETWEEN 1 AND 1000000),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stem, width)
);
COMMENT ON TABLE pictures IS 'Never changed: another picture is another stem, so answers may be kept for a year.';
-- They are compressed already.
ALTER TABLE pictures ALTER COLUMN body SET STORAGE EXTERNAL;
