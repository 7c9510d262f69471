-- bench/linux/job.sql - inserts, an index, joins, aggregates, updates, deletes; the number of rows is in table size.
PRAGMA journal_mode = DELETE;
PRAGMA synchronous = OFF;
CREATE TABLE person(id INTEGER PRIMARY KEY, name TEXT, town INTEGER, score INTEGER);
CREATE TABLE town(id INTEGER PRIMARY KEY, name TEXT);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
INSERT INTO town SELECT i, 'town ' || (i * 7919 % 1009) FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < (SELECT rows FROM size))
INSERT INTO person SELECT i, printf('%08x', i * 2654435761 % 4294967296), i * 31 % 200 + 1, i * 17 % 1001 FROM n;
COMMIT;
CREATE INDEX by_name ON person(name);
CREATE INDEX by_town ON person(town, score);
SELECT count(*), min(name), max(name), sum(score) FROM person;
SELECT t.name, count(*), avg(p.score) FROM person p JOIN town t ON t.id = p.town GROUP BY t.id ORDER BY 3 DESC, 1 LIMIT 20;
SELECT p.id, p.name FROM person p WHERE p.name LIKE '%beef%' ORDER BY p.name LIMIT 20;
UPDATE person SET score = score + 1 WHERE town % 3 = 0;
DELETE FROM person WHERE name BETWEEN '40000000' AND '5fffffff';
SELECT a.town, sum(a.score * b.score) FROM person a JOIN person b ON b.id = a.id + 1 GROUP BY a.town ORDER BY 2 DESC LIMIT 10;
SELECT count(*), sum(score), sum(length(name)) FROM person;
VACUUM;
PRAGMA integrity_check;
