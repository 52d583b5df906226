-- Beside the WebP, where it is smaller. Pictures from before have none.
ALTER TABLE pictures ADD COLUMN avif bytea CHECK (octet_length(avif) BETWEEN 1 AND 1000000);
ALTER TABLE pictures ALTER COLUMN avif SET STORAGE EXTERNAL;
