drop index entry_at;
