-- A key has one holder, however many certificates: a search for another holder reads two rows at most.
create index certificate_key_holder on certificate (key_digest, coalesce(holder, ''));
drop index certificate_key;
