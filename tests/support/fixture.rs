//! Input of OULAD's shape, made from a seed: every file, every oddity (missing dates and scores, repeated clicks, malformed
//! rows), in any number of rows.

use std::fs;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

/// A directory of CSV files.
pub struct Fixture {
    dir: TempDir,
}

const RESULTS: [&str; 4] = ["Pass", "Fail", "Withdrawn", "Distinction"];

impl Fixture {
    /// About `rows` rows in the large files together.
    #[must_use]
    pub fn new(rows: usize, seed: u64) -> Self {
        let dir = tempfile::Builder::new().prefix("weir-fixture-").tempdir().unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        let presentations = [("AAA", "2013J", 268), ("AAA", "2014B", 240), ("BBB", "2013B", 234)];
        let mut files = Files::default();
        for (module, presentation, length) in presentations {
            files.courses.push_str(&format!("{module},{presentation},{length}\n"));
        }
        for (id, (module, presentation, _)) in (100..).zip(presentations.iter().cycle()).take(12) {
            let kind = if id % 2 == 0 { "TMA" } else { "CMA" };
            files.assessments.push_str(&format!("{module},{presentation},{id},{kind},{},{}.0\n", id - 90, id % 7));
        }
        let learners = rows / 10;
        for student in 0..learners {
            let (module, presentation, _) = presentations[student % 3];
            files.learner(&mut random, module, presentation, student);
        }
        while files.large_rows < rows {
            let student = random.random_range(0..learners);
            let (module, presentation, _) = presentations[student % 3];
            files.activity(&mut random, module, presentation, student);
        }
        files.write(dir.path());
        Self { dir }
    }

    /// Where the files are.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path as an argument.
    #[must_use]
    pub fn arg(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }
}

#[derive(Default)]
struct Files {
    courses: String,
    assessments: String,
    info: String,
    registration: String,
    submissions: String,
    clicks: String,
    large_rows: usize,
    submitted: std::collections::HashSet<(usize, usize)>,
}

impl Files {
    fn learner(&mut self, random: &mut StdRng, module: &str, presentation: &str, student: usize) {
        let result = RESULTS[random.random_range(0..4)];
        let imd = if student.is_multiple_of(9) { "" } else { "20-30%" };
        self.info.push_str(&format!(
            "{module},{presentation},{student},F,Scotland,\"A Level, or Equivalent\",{imd},0-35,0,60,{},{result}\n",
            if student.is_multiple_of(11) { 1 } else { 0 }
        ));
        let registered =
            if student.is_multiple_of(13) { String::new() } else { (-random.random_range(0..200_i32)).to_string() };
        let left = if result == "Withdrawn" { random.random_range(-20..200).to_string() } else { String::new() };
        self.registration.push_str(&format!("{module},{presentation},{student},{registered},{left}\n"));
        self.large_rows += 2;
    }

    fn activity(&mut self, random: &mut StdRng, module: &str, presentation: &str, student: usize) {
        self.large_rows += 1;
        if random.random_range(0..4) == 0 {
            // The twelve assessments go round the three presentations, as the learners do.
            let id = 100 + student % 3 + 3 * random.random_range(0..4_usize);
            if self.submitted.insert((id, student)) {
                let score = match random.random_range(0..50) {
                    0 => String::new(),
                    1 => "a lot".to_owned(),
                    _ => random.random_range(0..=100).to_string(),
                };
                self.submissions.push_str(&format!(
                    "{id},{student},{},{},{score}\n",
                    random.random_range(0..250),
                    student % 2
                ));
            }
            return;
        }
        let (site, day) = (random.random_range(500..520), random.random_range(-10..250));
        self.clicks
            .push_str(&format!("{module},{presentation},{student},{site},{day},{}\n", random.random_range(1..30)));
        if random.random_range(0..20) == 0 {
            self.clicks.push_str(&format!("{module},{presentation},{student},{site},{day},1\n"));
            self.large_rows += 1;
        }
    }

    fn write(&self, dir: &Path) {
        let files = [
            ("courses", "code_module,code_presentation,module_presentation_length", &self.courses),
            (
                "assessments",
                "code_module,code_presentation,id_assessment,assessment_type,date,weight",
                &self.assessments,
            ),
            (
                "studentInfo",
                "code_module,code_presentation,id_student,gender,region,highest_education,imd_band,age_band,num_of_prev_attempts,studied_credits,disability,final_result",
                &self.info,
            ),
            (
                "studentRegistration",
                "code_module,code_presentation,id_student,date_registration,date_unregistration",
                &self.registration,
            ),
            ("studentAssessment", "id_assessment,id_student,date_submitted,is_banked,score", &self.submissions),
            ("studentVle", "code_module,code_presentation,id_student,id_site,date,sum_click", &self.clicks),
        ];
        for (name, header, rows) in files {
            fs::write(dir.join(format!("{name}.csv")), format!("{header}\n{rows}")).unwrap();
        }
    }
}
