create index secret_created on secret (mount, created_at, path);
