update entry set at = ordered.at
from (select idx, max(at) over (order by idx) as at from entry) as ordered
where ordered.idx = entry.idx and ordered.at > entry.at;
