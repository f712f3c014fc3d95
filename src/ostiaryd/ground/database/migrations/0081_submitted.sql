create table submitted (
    key text primary key,
    body text not null,
    approval_id text not null references approval
) {keyed};
create index submitted_approval on submitted (approval_id);
