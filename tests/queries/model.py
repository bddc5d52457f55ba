"""Answers to the questions of sql/queries by plain Python over events, without SQL: what the stores' answers are held against.

    model.py < EVENTS            one JSON object a line: id, type, tenant, producer, version, data, timestamp, recorded_at
    model.py DIR                 the Open University files of that directory, read here a second time, apart from the importer

Prints {question: {"arguments": [...], "rows": [...]}}.
"""

import csv
import gzip
import json
import math
import os
import sys
from collections import defaultdict
from datetime import datetime, timedelta, timezone

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
DAY = 86_400_000


def millis(text):
    text = text.replace("Z", "+00:00")
    return round((datetime.fromisoformat(text) - EPOCH) / timedelta(milliseconds=1))


def time_text(at):
    moment = EPOCH + timedelta(milliseconds=at)
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + (f".{at % 1000:03}" if at % 1000 else "") + "Z"


def day_text(at):
    return (EPOCH + timedelta(milliseconds=at)).strftime("%Y-%m-%d")


def half_up(value):
    return math.floor(value + 0.5)


class Event:
    def __init__(self, row):
        self.id, self.type, self.tenant, self.data = row["id"], row["type"], row["tenant"], row["data"]
        self.producer, self.version = row.get("producer"), row.get("version")
        self.at, self.recorded = millis(row["timestamp"]), row.get("recorded_at") and millis(row["recorded_at"])

    def __getitem__(self, name):
        return self.data.get(name)

    @property
    def user(self):
        return self.data.get("userId")


class Events:
    def __init__(self, events):
        self.all = events
        self.by_type = defaultdict(list)
        for event in events:
            self.by_type[event.type].append(event)

    def of(self, name):
        return self.by_type[name]

    def active(self):
        return [(e.tenant, e.user, e.at, e.type) for n in ("LearningSessionStarted", "AssessmentCompleted") for e in self.of(n)]


def groups(items, key):
    found = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return sorted(found.items())


def rank(values, percent):
    """The least value that is not less than so many percent of all."""
    return sorted(values)[-(-len(values) * percent // 100) - 1]


def percent_of(event):
    return event["score"] * 100 / event["maxScore"]


def millionths(event):
    return half_up(event["score"] * 1_000_000 / event["maxScore"])


def learners_inactive(events, days=14):
    newest, learners = {}, defaultdict(list)
    for tenant, user, at, kind in events.active():
        newest[tenant] = max(newest.get(tenant, at), at)
        learners[tenant, user].append((at, kind))
    gone = {(e.tenant, e.user) for e in events.of("UserDeactivated")}
    for (tenant, user), seen in sorted(learners.items()):
        last = max(at for at, _ in seen)
        if (tenant, user) in gone or newest[tenant] - last < days * DAY:
            continue
        sessions = sum(kind == "LearningSessionStarted" for _, kind in seen)
        yield tenant, user, time_text(last), (newest[tenant] - last) // DAY, sessions, len(seen) - sessions


def learner_timeline(events, user):
    for e in sorted((e for e in events.all if e.user == user), key=lambda e: (e.tenant, e.at, e.id)):
        fields = [e[n] for n in ("learningPathId", "moduleId", "assessmentId", "contentId", "score", "maxScore", "passed", "reason")]
        yield e.tenant, time_text(e.at), e.type, *fields


def learner_scores(events, user):
    mine = [e for e in events.of("AssessmentCompleted") if e.user == user]
    for (tenant, assessment), taken in groups(mine, lambda e: (e.tenant, e["assessmentId"])):
        last = max(taken, key=lambda e: (e.at, e.id))
        yield (tenant, assessment, len(taken), max(map(percent_of, taken)), percent_of(last), any(e["passed"] for e in taken),
               time_text(last.at), sum(half_up(e["timeSpent"]) for e in taken) / 1000)


def learner_progress(events, user):
    modules = defaultdict(set)
    for e in events.of("LearningSessionStarted"):
        modules[e.tenant, e["learningPathId"]].add(e["moduleId"])
    mine = [e for e in events.of("LearningSessionStarted") if e.user == user]
    for key, sessions in groups(mine, lambda e: (e.tenant, e["learningPathId"])):
        seen = len({e["moduleId"] for e in sessions})
        yield (*key, len(sessions), seen, len(modules[key]), seen * 100 / len(modules[key]),
               time_text(min(e.at for e in sessions)), time_text(max(e.at for e in sessions)))


def learner_time(events, user):
    mine = [e for n in ("LearningSessionStarted", "AssessmentCompleted") for e in events.of(n) if e.user == user]
    for (tenant, day), found in groups(mine, lambda e: (e.tenant, day_text(e.at))):
        sessions = [e for e in found if e.type == "LearningSessionStarted"]
        spent = sum(half_up(e["timeSpent"]) for e in found if e.type == "AssessmentCompleted")
        yield tenant, day, len(sessions), len(found) - len(sessions), spent / 1000


def engagement_by_module(events):
    for key, found in groups(events.of("LearningSessionStarted"), lambda e: (e.tenant, e["learningPathId"], e["moduleId"])):
        learners = len({e.user for e in found})
        yield (*key, len(found), learners, len(found) / learners, time_text(max(e.at for e in found)))


def content_items(events):
    names = ("ContentUploaded", "ContentProcessingStarted", "ContentProcessingCompleted")
    for key, found in groups((e for n in names for e in events.of(n)), lambda e: (e.tenant, e["contentId"])):
        uploads = [e for e in found if e.type == names[0]]
        ended = [e for e in found if e.type == names[2]]
        most = lambda name: max((e[name] for e in uploads), default=None)
        yield (*key, most("contentType"), most("userId"), most("fileSize"), sum(e.type == names[1] for e in found), len(ended),
               sum(e["status"] == "failed" for e in ended), time_text(max(e.at for e in found)))


def takes(events):
    """Each learner's attempts at each assessment, in order."""
    for key, taken in groups(events.of("AssessmentCompleted"), lambda e: (e.tenant, e["assessmentId"], e.user)):
        yield key, sorted(taken, key=lambda e: (e.at, e.id))


def attempts_until_passed(events):
    needed = []
    for (tenant, _, _), taken in takes(events):
        needed += [(tenant, next(n for n, e in enumerate(taken, 1) if e["passed"]))] if any(e["passed"] for e in taken) else []
    for key, found in groups(needed, lambda k: k):
        yield (*key, len(found))


def score_distribution(events):
    band = lambda e: min(math.floor(e["score"] * 10 / e["maxScore"]), 9) * 10
    for key, found in groups(events.of("AssessmentCompleted"), lambda e: (e.tenant, e["assessmentId"], band(e))):
        yield (*key, len(found), len({e.user for e in found}))


def assessment_difficulty(events):
    taken, thirds = events.of("AssessmentCompleted"), {}
    for tenant, of_tenant in groups(taken, lambda e: e.tenant):
        means = []
        for (user,), found in groups(of_tenant, lambda e: (e.user,)):
            means.append((sum(map(millionths, found)) / len(found), user))
        for place, (_, user) in enumerate(sorted(means), 1):
            thirds[tenant, user] = 1 if place * 3 > len(means) * 2 else -1 if place * 3 <= len(means) else 0
    for key, found in groups(taken, lambda e: (e.tenant, e["assessmentId"])):
        of = lambda third: [millionths(e) for e in found if thirds[e.tenant, e.user] == third]
        mean = lambda values: sum(values) / len(values) / 10000
        apart = mean(of(1)) - mean(of(-1)) if of(1) and of(-1) else None
        yield (*key, len(found), mean(list(map(millionths, found))), apart)


def learning_paths_compared(events, path, other):
    results = defaultdict(list)
    for e in events.of("AssessmentCompleted"):
        results[e.tenant, e.user].append(e)
    chosen = [e for e in events.of("LearningSessionStarted") if e["learningPathId"] in (path, other)]
    for (tenant, name), sessions in groups(chosen, lambda e: (e.tenant, e["learningPathId"])):
        learners = {e.user for e in sessions}
        taken = [e for user in learners for e in results[tenant, user]]
        mean = sum(map(millionths, taken)) / len(taken) / 10000 if taken else None
        yield (tenant, name, len(learners), len(sessions), len({e["moduleId"] for e in sessions}), len(taken),
               sum(bool(e["passed"]) for e in taken), mean)


def monday(at):
    return at - (at + 3 * DAY) % (7 * DAY)


def retention_by_cohort(events):
    cohorts, sizes, weeks = registered_at(events), defaultdict(int), set()
    for (tenant, _), at in cohorts.items():
        sizes[tenant, monday(at)] += 1
    for tenant, user, at, _ in events.active():
        joined = cohorts.get((tenant, user))
        if joined is not None and monday(at) >= monday(joined):
            weeks.add((tenant, monday(joined), (monday(at) - monday(joined)) // (7 * DAY), user))
    for (tenant, cohort, week), found in groups(weeks, lambda w: w[:3]):
        size = sizes[tenant, cohort]
        yield tenant, day_text(cohort), week, size, len(found), len(found) * 100 / size


def registered_at(events):
    found = {}
    for e in events.of("UserRegistered"):
        key = (e.tenant, e.user)
        found[key] = min(found.get(key, e.at), e.at)
    return found


def funnel(events):
    users = lambda name, keep=bool: {(e.tenant, e.user) for e in events.of(name) if keep(e)}
    registered, sessions = users("UserRegistered"), users("LearningSessionStarted")
    taken, passed = users("AssessmentCompleted"), users("AssessmentCompleted", lambda e: e["passed"])
    for tenant in sorted({tenant for tenant, _ in registered}):
        of = lambda *sets: sum(key[0] == tenant for key in set.intersection(*sets))
        yield (tenant, of(registered), of(registered, sessions), of(registered, sessions, taken), of(registered, sessions, passed))


def time_to_first_session(events):
    registered, waited = registered_at(events), {}
    for e in events.of("LearningSessionStarted"):
        key = (e.tenant, e.user)
        if key in registered and e.at >= registered[key]:
            waited[key] = min(waited.get(key, e.at), e.at)
    for tenant, keys in groups(waited, lambda key: key[0]):
        times = [waited[key] - registered[key] for key in keys]
        yield tenant, len(times), rank(times, 50) / 1000, rank(times, 90) / 1000


def session_length(events):
    started = {(e.tenant, e["sessionId"]): e for e in events.of("LearningSessionStarted")}
    ended = {}
    for e in events.of("AssessmentCompleted"):
        key = (e.tenant, e["sessionId"])
        if key[1] and key in started and e.at >= started[key].at:
            ended[key] = max(ended.get(key, e.at), e.at)
    for key, keys in groups(ended, lambda key: (key[0], started[key]["learningPathId"])):
        times = [ended[k] - started[k].at for k in keys]
        yield (*key, len(times), rank(times, 50) / 1000, rank(times, 90) / 1000)


def processing_by_size(events):
    sizes = defaultdict(int)
    for e in events.of("ContentUploaded"):
        sizes[e.tenant, e["contentId"]] = max(sizes[e.tenant, e["contentId"]], e["fileSize"])

    def size(e):
        known = sizes.get((e.tenant, e["contentId"]))
        bounds = [(1 << 20, "0 to 1 MiB"), (10 << 20, "1 to 10 MiB"), (100 << 20, "10 to 100 MiB")]
        return "unknown" if known is None else next((name for bound, name in bounds if known < bound), "100 MiB and more")

    for key, found in groups(events.of("ContentProcessingCompleted"), lambda e: (e.tenant, e["processingType"], size(e))):
        times = [e["processingDuration"] for e in found]
        yield (*key, len(found), sum(e["status"] == "failed" for e in found), rank(times, 50), rank(times, 90))


def agent_failures(events):
    assigned = {(e.tenant, e["taskId"]): e for e in events.of("TaskAssigned")}

    def key(e):
        task = assigned.get((e.tenant, e["taskId"]))
        return (e.tenant, *((task[n] or "(unknown)") if task else "(unknown)" for n in ("agentType", "priority")))

    for names, found in groups(events.of("TaskCompleted"), key):
        of = lambda status: sum(e["status"] == status for e in found)
        yield (*names, len(found), of("failed"), of("cancelled"), of("failed") * 100 / len(found))


def agent_resources(events):
    used = lambda e, name: (e["resourceUsage"] or {}).get(name) or 0
    for key, found in groups(events.of("TaskCompleted"), lambda e: (e.tenant, e["agentId"])):
        yield (*key, len(found), sum(half_up(used(e, "cpuTime") * 1000) for e in found) / 1_000_000,
               max(used(e, "memoryUsage") for e in found), sum(half_up(used(e, "apiCalls")) for e in found))


def deadlines_missed(events):
    assigned = {(e.tenant, e["taskId"]): e for e in events.of("TaskAssigned")}
    rows = []
    for e in events.of("TaskCompleted"):
        task = assigned.get((e.tenant, e["taskId"]))
        if task and task["deadline"] and millis(e["timestamp"]) > millis(task["deadline"]):
            late = millis(e["timestamp"]) - millis(task["deadline"])
            rows.append((e.tenant, e["taskId"], e["agentId"], task["taskType"], task["priority"], time_text(millis(task["deadline"])),
                         time_text(millis(e["timestamp"])), late / 1000))
    return sorted(rows, key=lambda row: row[:2])


def events_by_source(events):
    for key, found in groups(events.all, lambda e: (e.type, e.producer, e.version)):
        yield (*key, len(found), time_text(min(e.at for e in found)), time_text(max(e.at for e in found)))


def late_events(events, minutes=60):
    for kind, found in groups(events.all, lambda e: e.type):
        behind = [e.recorded - e.at for e in found]
        yield kind, len(found), sum(ms > minutes * 60000 for ms in behind), max(behind) / 1000


def tenants_compared(events):
    for tenant, found in groups(events.all, lambda e: e.tenant):
        of = lambda *names: [e for e in found if e.type in names]
        users = lambda *names: len({e.user for e in of(*names)})
        yield (tenant, users("UserRegistered"), users("UserDeactivated"), users("LearningSessionStarted", "AssessmentCompleted"),
               len(of("LearningSessionStarted")), len(of("AssessmentCompleted")), sum(bool(e["passed"]) for e in of("AssessmentCompleted")),
               len(of("ContentUploaded")), len(of("TaskCompleted")), sum(e["status"] == "failed" for e in of("TaskCompleted")),
               len(found), time_text(max(e.at for e in found)))


# What the files of the Open University cannot tell: who recorded an event, and when.
RECORDED = {"events_by_source", "late_events"}
ANSWERS = [
    learners_inactive, learner_timeline, learner_scores, learner_progress, learner_time, engagement_by_module, content_items,
    attempts_until_passed, score_distribution, assessment_difficulty, learning_paths_compared, retention_by_cohort, funnel,
    time_to_first_session, session_length, processing_by_size, agent_failures, agent_resources, deadlines_missed, events_by_source,
    late_events, tenants_compared,
]


def table(directory, name):
    plain = os.path.join(directory, name + ".csv")
    opened = open(plain, newline="") if os.path.exists(plain) else gzip.open(plain + ".gz", "rt", newline="")
    with opened as rows:
        yield from csv.DictReader(rows)


def open_university(directory):
    """The events that the files tell, as the README of the data says; times are days after the presentation's start."""
    starts, lengths, kinds, people = {}, {}, {}, set()
    for row in table(directory, "courses"):
        year, letter = row["code_presentation"][:4], row["code_presentation"][4]
        starts[row["code_module"], row["code_presentation"]] = datetime(int(year), {"B": 2, "J": 10}[letter], 1, tzinfo=timezone.utc)
        lengths[row["code_module"], row["code_presentation"]] = int(row["module_presentation_length"])
    for row in table(directory, "assessments"):
        kinds[row["id_assessment"]] = (row["code_module"], row["code_presentation"])
    number = 0

    def event(kind, course, day, data):
        nonlocal number
        number += 1
        at = (starts[course] + timedelta(days=day)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return Event({"id": number, "type": kind, "tenant": "default", "data": data, "timestamp": at})

    for row in table(directory, "studentInfo"):
        course = (row["code_module"], row["code_presentation"])
        user = "-".join((row["id_student"], *course))
        people.add(user)
        yield event("UserProfileUpdated", course, lengths[course], {"userId": user})
    for row in table(directory, "studentRegistration"):
        course = (row["code_module"], row["code_presentation"])
        user, day, left = "-".join((row["id_student"], *course)), row["date_registration"], row["date_unregistration"]
        missing = ("", "?")
        if user not in people:
            continue
        if left not in missing:
            yield event("UserDeactivated", course, int(left), {"userId": user, "reason": "unregistered"})
        day = int(day) if day not in missing else min(int(left), 0) if left not in missing else 0
        yield event("UserRegistered", course, day, {"userId": user})
    for row in table(directory, "studentVle"):
        course = (row["code_module"], row["code_presentation"])
        data = {"userId": "-".join((row["id_student"], *course)), "learningPathId": "-".join(course), "moduleId": row["id_site"]}
        yield event("LearningSessionStarted", course, int(row["date"]), data)
    for row in table(directory, "studentAssessment"):
        if row["score"] in ("", "?"):
            continue
        course, score = kinds[row["id_assessment"]], float(row["score"])
        data = {"userId": "-".join((row["id_student"], *course)), "assessmentId": row["id_assessment"], "score": score, "maxScore": 100,
                "passed": score >= 40, "timeSpent": 0}
        yield event("AssessmentCompleted", course, int(row["date_submitted"]), data)


def arguments(events):
    """Of those that must be told something: the learner with most different events, a path with an assessed session, and another path."""
    kinds = defaultdict(set)
    for e in events.all:
        if e.user:
            kinds[e.user].add(e.type)
    user = max(sorted(kinds), key=lambda user: len(kinds[user]))
    paths = sorted({e["learningPathId"] for e in events.of("LearningSessionStarted")})
    assessed = {e["sessionId"] for e in events.of("AssessmentCompleted")} - {None}
    path = min((e["learningPathId"] for e in events.of("LearningSessionStarted") if e["sessionId"] in assessed), default=paths[0])
    other = next(name for name in reversed(paths) if name != path)
    one = {"user": user}
    return {
        "learner_timeline": one, "learner_scores": one, "learner_progress": one, "learner_time": one,
        "learning_paths_compared": {"path": path, "other": other}, "learners_inactive": {"days": 1},
        "late_events": {"minutes": 1},
    }


def main():
    of_files = len(sys.argv) > 1
    found = list(open_university(sys.argv[1])) if of_files else [Event(json.loads(line)) for line in sys.stdin]
    events = Events(found)
    told, answers = arguments(events), {}
    for answer in ANSWERS:
        name = answer.__name__
        if of_files and (name in RECORDED or name == "learner_timeline"):
            continue
        said = told.get(name, {})
        answers[name] = {"arguments": [f"{k}={v}" for k, v in said.items()], "rows": list(answer(events, **said))}
    json.dump(answers, sys.stdout)


main()
