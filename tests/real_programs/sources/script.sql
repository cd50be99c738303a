create table towns (name text primary key, people integer, country text);
create index by_country on towns (country, people);
insert into towns values ('Bern', 134, 'CH'), ('Basel', 173, 'CH'), ('Lyon', 522, 'FR'), ('Thun', null, 'CH');
create table log (thread integer, step integer);
begin;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000)
insert into towns select 'town ' || i, i % 977, 'XX' from n;
update towns set people = people + 1 where country = 'CH';
rollback;
select name, people * 2 from towns where people > 100 order by people desc;
select country, count(*), round(avg(people), 1), json_group_array(name) from towns group by country;
select name, rank() over (order by people) from towns where people is not null;
select printf('%.3f|%s', 1.0 / 3, hex('blob')), date(0, 'unixepoch');
create virtual table words using fts5(text);
insert into words values ('linked in memory'), ('linked on disk');
select rowid from words where words match 'memory';
select missing from towns;
