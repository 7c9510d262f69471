"""Results of one run of the runner: a header and one JSON line per finished (round, suite, engine), appended as they come."""
import json
import os


class Unusable(Exception):
    pass


class Store:
    def __init__(self, folder):
        self.folder = folder
        self.path = os.path.join(folder, "results.jsonl")
        self.header, self.records = None, []

    def load(self):
        with open(self.path, encoding="utf-8") as f:
            for number, line in enumerate(f):
                try:
                    item = json.loads(line)
                except ValueError:
                    break  # the last line of a run that was killed while it wrote
                if number == 0:
                    self.header = item
                else:
                    self.records.append(item)
        if not isinstance(self.header, dict) or "rounds" not in self.header:
            raise Unusable("%s holds no results of a run" % self.path)
        return self

    def start(self, header):
        os.makedirs(self.folder, exist_ok=True)
        self.header = header
        with open(self.path, "w", encoding="utf-8") as f:
            f.write(json.dumps(header) + "\n")

    def done(self, rnd, suite, engine):
        return any((r.get("round"), r.get("suite"), r.get("engine")) == (rnd, suite, engine) for r in self.records)

    def add_failure(self, text):
        """A run that gave no result; a resumed run tries it again."""
        self.add({"failure": text})

    def failures(self):
        return [r["failure"] for r in self.records if "failure" in r]

    def add(self, record):
        self.records.append(record)
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(json.dumps(record) + "\n")

    def rewrite(self):
        """Drops a half-written last line, and failures, before more is appended."""
        self.records = [r for r in self.records if "failure" not in r]
        with open(self.path + ".part", "w", encoding="utf-8") as f:
            for item in [self.header] + self.records:
                f.write(json.dumps(item) + "\n")
        os.replace(self.path + ".part", self.path)
