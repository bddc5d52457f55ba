//! Made-up learners, files and agents, whose commands follow the rules: all ten event types, in plausible proportions.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use weir_model::decide::CommandType;
use weir_model::{EventType, Object};

/// About how many other commands lie between one that is stored and the one that follows on it.
const DISTANCE: std::ops::Range<u64> = 50..300;

/// What learners are examined in.
const ASSESSMENTS: [&str; 6] =
    ["algebra-quiz", "algebra-exam", "history-quiz", "history-exam", "biology-quiz", "biology-exam"];

/// A command, and those that follow on it once it is stored.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) command: CommandType,
    pub(super) data: Object,
    then: Option<Box<Step>>,
}

/// Makes commands without end.
pub(super) struct Learners {
    random: StdRng,
    run: String,
    users: u64,
    things: u64,
    /// Steps whose predecessors are stored, with the count at which they are due.
    later: BTreeMap<(u64, u64), Step>,
    made: u64,
}

impl Learners {
    pub(super) fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { random, run: format!("{seed:016x}"), users: 0, things: 0, later: BTreeMap::new(), made: 0 }
    }

    /// Names this run: ids of different runs never meet.
    pub(super) fn run(&self) -> &str {
        &self.run
    }

    pub(super) fn next(&mut self) -> Step {
        self.made += 1;
        if let Some(first) = self.later.first_entry()
            && first.key().0 <= self.made
        {
            return first.remove();
        }
        let (event_type, data) = match self.random.random_range(0..100) {
            _ if self.users < 10 => self.register(),
            0..8 => self.register(),
            8..12 => (
                EventType::UserProfileUpdated,
                json!({"userId": self.user(), "changedFields": ["language"], "previousValues": {}, "newValues": {"language": self.pick(&["en", "fr", "de"])}}),
            ),
            12..13 => (EventType::UserDeactivated, json!({"userId": self.user(), "reason": "demo"})),
            13..25 => return self.upload(),
            25..55 => return self.learn(),
            55..85 => return self.assess(),
            _ => return self.assign(),
        };
        step(event_type, data, None)
    }

    /// A step is stored: what follows on it may come.
    pub(super) fn stored(&mut self, step: Step) {
        if let Some(then) = step.then {
            self.things += 1;
            let due = self.made + self.random.random_range(DISTANCE);
            self.later.insert((due, self.things), *then);
        }
    }

    fn pick(&mut self, choices: &[&'static str]) -> &'static str {
        choices.choose(&mut self.random).copied().unwrap_or_default()
    }

    fn user(&mut self) -> String {
        let n = self.random.random_range(0..self.users.max(1));
        format!("learner-{}-{n}", self.run)
    }

    fn thing(&mut self, kind: &str) -> String {
        self.things += 1;
        format!("{kind}-{}-{}", self.run, self.things)
    }

    fn register(&mut self) -> (EventType, Value) {
        let id = format!("learner-{}-{}", self.run, self.users);
        self.users += 1;
        let data = json!({"userId": id, "email": format!("{id}@example.com"), "username": id, "registrationSource": "demo",
            "profile": {"firstName": "Learner", "lastName": self.users.to_string(), "preferences": {"timezone": "UTC"}}});
        (EventType::UserRegistered, data)
    }

    fn upload(&mut self) -> Step {
        let (id, user) = (self.thing("content"), self.user());
        let status = self.pick(&["success", "success", "partial", "failed"]);
        let duration = self.random.random_range(200..9000);
        let completed = step(
            EventType::ContentProcessingCompleted,
            json!({"contentId": id, "userId": user, "processingType": "text", "status": status, "processingDuration": duration,
                "results": {"language": "en", "confidence": 0.9}}),
            None,
        );
        let started =
            step(EventType::ContentProcessingStarted, json!({"contentId": id, "userId": user}), Some(completed));
        let data = json!({"contentId": id, "userId": user, "contentType": self.pick(&["text", "image", "audio", "document", "video"]),
            "fileName": "notes", "fileSize": self.random.random_range(1000..5_000_000), "mimeType": "application/octet-stream",
            "fileUrl": format!("https://files.example/{id}")});
        step(EventType::ContentUploaded, data, Some(started))
    }

    fn assess(&mut self) -> Step {
        let (assessment, user) = (self.pick(&ASSESSMENTS).to_owned(), self.user());
        let ability = self.random.random_range(0..=70);
        self.attempt(&assessment, &user, ability, 0)
    }

    /// A session; some end with an assessment.
    fn learn(&mut self) -> Step {
        let (id, user) = (self.thing("session"), self.user());
        let examined = self.random.random_bool(0.2).then(|| {
            let (assessment, ability) = (self.pick(&ASSESSMENTS), self.random.random_range(0..=70));
            let mut step = self.attempt(assessment, &user, ability, 0);
            step.data.insert("sessionId".to_owned(), id.clone().into());
            step
        });
        let data = json!({"sessionId": id, "userId": user, "learningPathId": self.pick(&["algebra", "history", "biology"]),
            "moduleId": self.pick(&["m1", "m2", "m3"]), "deviceInfo": {"type": self.pick(&["laptop", "phone"]), "os": "linux"}});
        step(EventType::LearningSessionStarted, data, examined)
    }

    /// Most who fail try again later, and have learned something meanwhile.
    fn attempt(&mut self, assessment: &str, user: &str, ability: i64, before: i64) -> Step {
        let score = (ability + 10 * before + self.random.random_range(0..=30)).min(100);
        let passed = score >= 50;
        let again = !passed && before < 4 && self.random.random_bool(0.8);
        let then = again.then(|| self.attempt(assessment, user, ability, before + 1));
        let data = json!({"assessmentId": format!("{assessment}-{}", self.run), "userId": user, "score": score, "maxScore": 100,
            "passed": passed, "timeSpent": self.random.random_range(60_000..3_600_000)});
        step(EventType::AssessmentCompleted, data, then)
    }

    fn assign(&mut self) -> Step {
        let (id, agent) = (self.thing("task"), format!("agent-{}", self.random.random_range(0..8)));
        let status = self.pick(&["completed", "completed", "completed", "failed", "cancelled"]);
        let execution = self.random.random_range(50..900_000);
        let used = json!({"cpuTime": execution / 3, "memoryUsage": self.random.random_range(20..900), "apiCalls": self.random.random_range(0..9)});
        let completed = step(
            EventType::TaskCompleted,
            json!({"taskId": id, "agentId": agent, "status": status, "executionTime": execution, "resourceUsage": used}),
            None,
        );
        // Some are kept and some are not, however fast the demo runs.
        let given = if self.random.random_bool(0.2) { 5..500 } else { 500..20_000 };
        let deadline = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(self.random.random_range(given));
        let mut data = json!({"taskId": id, "agentId": agent, "agentType": self.pick(&["researcher", "analyzer", "creator", "reviewer", "coordinator"]),
            "taskType": "summarise", "priority": self.pick(&["low", "normal", "high", "critical"]), "expectedDuration": 60_000});
        if self.random.random_bool(0.7) {
            data["deadline"] = json!(format!("{deadline:.3}"));
        }
        step(EventType::TaskAssigned, data, Some(completed))
    }
}

fn step(event_type: EventType, data: Value, then: Option<Step>) -> Step {
    let data = if let Value::Object(data) = data { data } else { Object::new() };
    Step { command: CommandType::for_event(event_type), data, then: then.map(Box::new) }
}
