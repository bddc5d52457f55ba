//! Reading the files: each row checked, joined with the small tables, and either imported or rejected with its line.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use csv::StringRecord;
use flate2::read::MultiGzDecoder;
use jiff::civil::Date;
use jiff::{Span, tz::TimeZone};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use weir_engine::BoxError;

use super::Row;

/// What a row says, joined and checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum RowData {
    Registered {
        user: String,
        preferences: Map<String, Value>,
    },
    Unregistered {
        user: String,
    },
    Session {
        module: String,
        presentation: String,
        student: String,
        site: String,
        day: i64,
        clicks: i64,
    },
    Assessment {
        assessment: String,
        student: String,
        user: String,
        score: f64,
        kind: String,
        weight: f64,
        banked: bool,
    },
    FinalResult {
        user: String,
        result: String,
    },
}

impl RowData {
    /// The file it came from.
    pub(crate) fn file(&self) -> &'static str {
        match self {
            Self::Registered { .. } | Self::Unregistered { .. } => "studentRegistration",
            Self::Session { .. } => "studentVle",
            Self::Assessment { .. } => "studentAssessment",
            Self::FinalResult { .. } => "studentInfo",
        }
    }
}

struct Course {
    /// Day 0.
    start: Date,
    /// Days.
    length: i64,
}

struct Assessment {
    module: String,
    presentation: String,
    kind: String,
    weight: f64,
}

/// A learner's enrolment: module, presentation, student.
type Enrolment = (String, String, String);

/// All files of a data set, the small ones in memory.
pub(crate) struct Reader {
    dir: PathBuf,
    courses: HashMap<(String, String), Course>,
    assessments: HashMap<String, Assessment>,
    people: HashMap<Enrolment, Map<String, Value>>,
    results: Vec<Row>,
    rejects: Option<csv::Writer<File>>,
    rejected: u64,
}

/// Why a row is not imported.
type Reason = String;

/// Files that are held in memory, and those that are not.
const SMALL: [&str; 3] = ["courses", "assessments", "studentInfo"];
const LARGE: [&str; 3] = ["studentRegistration", "studentVle", "studentAssessment"];

impl Reader {
    /// Reads the small files.
    pub(crate) fn open(dir: &Path, rejects: Option<&Path>) -> Result<Self, BoxError> {
        // What is not there must not empty the file of an earlier import's rejects.
        for name in SMALL.into_iter().chain(LARGE) {
            open(dir, name)?;
        }
        let mut writer = rejects.map(csv::Writer::from_path).transpose()?;
        if let Some(writer) = &mut writer {
            writer.write_record(["file", "line", "reason"])?;
        }
        let mut reader = Self {
            dir: dir.to_owned(),
            courses: HashMap::new(),
            assessments: HashMap::new(),
            people: HashMap::new(),
            results: Vec::new(),
            rejects: writer,
            rejected: 0,
        };
        let [courses, assessments, people] = SMALL;
        reader.each(courses, Self::course)?;
        reader.each(assessments, Self::assessment)?;
        reader.each(people, Self::person)?;
        Ok(reader)
    }

    /// Every row of the large files, and the results, in no order.
    pub(crate) fn rows(&mut self) -> Result<impl Iterator<Item = Row>, BoxError> {
        let mut files = Vec::new();
        for name in LARGE {
            files.push(open(&self.dir, name)?);
        }
        let results = std::mem::take(&mut self.results);
        let mut files = files.into_iter();
        let (mut current, mut ready) = (files.next(), results);
        Ok(std::iter::from_fn(move || {
            loop {
                if let Some(row) = ready.pop() {
                    return Some(row);
                }
                let table = current.as_mut()?;
                match table.next() {
                    None => current = files.next(),
                    Some((line, record)) => {
                        let name = table.name;
                        let rows = record
                            .and_then(|record| self.read(name, line, &Fields { record, columns: &table.columns }));
                        match rows {
                            Ok(rows) => ready = rows,
                            Err(reason) => {
                                if let Err(error) = self.reject(name, line, &reason) {
                                    tracing::error!(%error, "the file of rejects cannot be written");
                                }
                            }
                        }
                    }
                }
            }
        }))
    }

    fn read(&self, name: &str, line: u64, fields: &Fields<'_>) -> Result<Vec<Row>, Reason> {
        match name {
            "studentRegistration" => self.registration(line, fields),
            "studentVle" => self.session(line, fields).map(|row| vec![row]),
            _ => self.submission(line, fields).map(|row| vec![row]),
        }
    }

    /// Keeps a row that is not imported.
    pub(crate) fn reject(&mut self, file: &str, line: u64, reason: &str) -> Result<(), BoxError> {
        self.rejected += 1;
        if let Some(writer) = &mut self.rejects {
            writer.write_record([file, &line.to_string(), reason])?;
        }
        Ok(())
    }

    /// How many were rejected.
    pub(crate) fn finish(mut self) -> Result<u64, BoxError> {
        if let Some(writer) = &mut self.rejects {
            writer.flush()?;
        }
        Ok(self.rejected)
    }

    fn each(
        &mut self,
        name: &'static str,
        take: fn(&mut Self, u64, &Fields<'_>) -> Result<(), Reason>,
    ) -> Result<(), BoxError> {
        let mut table = open(&self.dir, name)?;
        while let Some((line, record)) = table.next() {
            let taken = record.and_then(|record| take(self, line, &Fields { record, columns: &table.columns }));
            if let Err(reason) = taken {
                self.reject(name, line, &reason)?;
            }
        }
        Ok(())
    }

    fn course(&mut self, _: u64, fields: &Fields<'_>) -> Result<(), Reason> {
        let presentation = fields.text("code_presentation")?;
        let month = match presentation.get(4..) {
            Some("B") => 2,
            Some("J") => 10,
            _ => return Err(format!("presentation `{presentation}` is no year with B or J")),
        };
        let year = presentation.get(..4).and_then(|year| year.parse().ok());
        let start = year.and_then(|year| Date::new(year, month, 1).ok());
        let start = start.ok_or_else(|| format!("presentation `{presentation}` is no year with B or J"))?;
        let length = fields.integer("module_presentation_length")?;
        self.courses.insert((fields.text("code_module")?, presentation), Course { start, length });
        Ok(())
    }

    fn assessment(&mut self, _: u64, fields: &Fields<'_>) -> Result<(), Reason> {
        let assessment = Assessment {
            module: fields.text("code_module")?,
            presentation: fields.text("code_presentation")?,
            kind: fields.text("assessment_type")?,
            weight: fields.number("weight")?,
        };
        self.assessments.insert(fields.text("id_assessment")?, assessment);
        Ok(())
    }

    fn person(&mut self, line: u64, fields: &Fields<'_>) -> Result<(), Reason> {
        let enrolment = fields.enrolment()?;
        let mut preferences = Map::new();
        preferences.insert("module".to_owned(), enrolment.0.clone().into());
        preferences.insert("presentation".to_owned(), enrolment.1.clone().into());
        for (field, column) in [
            ("region", "region"),
            ("highestEducation", "highest_education"),
            ("imdBand", "imd_band"),
            ("ageBand", "age_band"),
            ("gender", "gender"),
        ] {
            preferences.insert(field.to_owned(), fields.optional(column)?.map_or(Value::Null, Value::from));
        }
        preferences.insert("disability".to_owned(), json!(fields.flag("disability")?));
        let course = self.course_of(&enrolment)?;
        let at = at_midnight(course, course.length)?;
        let data = RowData::FinalResult { user: user_id(&enrolment), result: fields.text("final_result")? };
        self.results.push(Row { at, table: 4, line, data });
        self.people.insert(enrolment, preferences);
        Ok(())
    }

    fn course_of(&self, (module, presentation, _): &Enrolment) -> Result<&Course, Reason> {
        let course = self.courses.get(&(module.clone(), presentation.clone()));
        course.ok_or_else(|| format!("courses has no presentation {presentation} of {module}"))
    }

    fn registration(&self, line: u64, fields: &Fields<'_>) -> Result<Vec<Row>, Reason> {
        let enrolment = fields.enrolment()?;
        let course = self.course_of(&enrolment)?;
        let preferences = self.people.get(&enrolment).cloned();
        let preferences = preferences.ok_or_else(|| "studentInfo has no such enrolment".to_owned())?;
        let unregistered = fields.optional_integer("date_unregistration")?;
        let registered = match fields.optional_integer("date_registration")? {
            Some(day) => day,
            None => unregistered.unwrap_or(0).min(0),
        };
        let user = user_id(&enrolment);
        let data = RowData::Registered { user: user.clone(), preferences };
        let mut rows = vec![Row { at: at_midnight(course, registered)?, table: 0, line, data }];
        if let Some(day) = unregistered {
            rows.push(Row { at: at_midnight(course, day)?, table: 1, line, data: RowData::Unregistered { user } });
        }
        Ok(rows)
    }

    fn session(&self, line: u64, fields: &Fields<'_>) -> Result<Row, Reason> {
        let enrolment = fields.enrolment()?;
        let day = fields.integer("date")?;
        let at = at_midnight(self.course_of(&enrolment)?, day)?;
        let (module, presentation, student) = enrolment;
        let (site, clicks) = (fields.text("id_site")?, fields.integer("sum_click")?);
        Ok(Row { at, table: 2, line, data: RowData::Session { module, presentation, student, site, day, clicks } })
    }

    fn submission(&self, line: u64, fields: &Fields<'_>) -> Result<Row, Reason> {
        let (id, student) = (fields.text("id_assessment")?, fields.text("id_student")?);
        let known = self.assessments.get(&id).ok_or_else(|| format!("assessments has no {id}"))?;
        let enrolment = (known.module.clone(), known.presentation.clone(), student.clone());
        let at = at_midnight(self.course_of(&enrolment)?, fields.integer("date_submitted")?)?;
        let data = RowData::Assessment {
            user: user_id(&enrolment),
            score: fields.number("score")?,
            banked: fields.flag("is_banked")?,
            kind: known.kind.clone(),
            weight: known.weight,
            assessment: id,
            student,
        };
        Ok(Row { at, table: 3, line, data })
    }
}

/// An enrolment is an account.
fn user_id((module, presentation, student): &Enrolment) -> String {
    format!("{student}-{module}-{presentation}")
}

fn at_midnight(course: &Course, day: i64) -> Result<i64, Reason> {
    let span = Span::new().try_days(day).map_err(|e| e.to_string())?;
    let date = course.start.checked_add(span).map_err(|e| e.to_string())?;
    let at = date.to_zoned(TimeZone::UTC).map_err(|e| e.to_string())?.timestamp().as_millisecond();
    weir_model::Timestamp::from_millis(at).map(weir_model::Timestamp::as_millis).map_err(|e| format!("day {day}: {e}"))
}

/// A file, row by row.
struct Listing {
    name: &'static str,
    columns: HashMap<String, usize>,
    csv: csv::Reader<Box<dyn Read + Send>>,
}

impl Listing {
    /// The next row with its line in the file.
    fn next(&mut self) -> Option<(u64, Result<StringRecord, Reason>)> {
        let mut record = StringRecord::new();
        let line = self.csv.position().line();
        match self.csv.read_record(&mut record) {
            Ok(false) => None,
            Ok(true) => Some((record.position().map_or(line, csv::Position::line), Ok(record))),
            Err(error) => match error.is_io_error() {
                // Nothing follows what cannot be read; the row after the last good one is named.
                true => {
                    self.csv = csv::Reader::from_reader(Box::new(io::empty()));
                    Some((line, Err(format!("the file cannot be read any further: {error}"))))
                }
                false => Some((line, Err(error.to_string()))),
            },
        }
    }
}

fn open(dir: &Path, name: &'static str) -> Result<Listing, BoxError> {
    let plain = dir.join(format!("{name}.csv"));
    let packed = dir.join(format!("{name}.csv.gz"));
    let file: Box<dyn Read + Send> = if plain.is_file() {
        Box::new(BufReader::new(File::open(&plain)?))
    } else {
        let file = File::open(&packed)
            .map_err(|e| format!("neither {} nor {} can be opened: {e}", plain.display(), packed.display()))?;
        Box::new(MultiGzDecoder::new(BufReader::new(file)))
    };
    let mut csv = csv::Reader::from_reader(file);
    let columns = csv.headers().map_err(|e| format!("{name} has no header line: {e}"))?;
    let columns = columns.iter().enumerate().map(|(index, column)| (column.trim().to_owned(), index)).collect();
    Ok(Listing { name, columns, csv })
}

/// A row's fields by name.
struct Fields<'a> {
    record: StringRecord,
    columns: &'a HashMap<String, usize>,
}

impl Fields<'_> {
    /// Empty, or `?` as the data set's web form had it, is missing.
    fn optional(&self, column: &str) -> Result<Option<String>, Reason> {
        let index = self.columns.get(column).ok_or_else(|| format!("the file has no column {column}"))?;
        let text = self.record.get(*index).unwrap_or_default().trim();
        Ok((!text.is_empty() && text != "?").then(|| text.to_owned()))
    }

    fn text(&self, column: &str) -> Result<String, Reason> {
        self.optional(column)?.ok_or_else(|| format!("{column} is missing"))
    }

    fn optional_integer(&self, column: &str) -> Result<Option<i64>, Reason> {
        let text = self.optional(column)?;
        text.map(|t| t.parse().map_err(|_| format!("{column} is `{t}`, no whole number"))).transpose()
    }

    fn integer(&self, column: &str) -> Result<i64, Reason> {
        self.optional_integer(column)?.ok_or_else(|| format!("{column} is missing"))
    }

    fn number(&self, column: &str) -> Result<f64, Reason> {
        let text = self.text(column)?;
        let number = text.parse::<f64>().ok().filter(|n| n.is_finite());
        number.ok_or_else(|| format!("{column} is `{text}`, no number"))
    }

    fn flag(&self, column: &str) -> Result<bool, Reason> {
        match self.text(column)?.as_str() {
            "0" | "N" => Ok(false),
            "1" | "Y" => Ok(true),
            other => Err(format!("{column} is `{other}`, neither 0 nor 1")),
        }
    }

    fn enrolment(&self) -> Result<Enrolment, Reason> {
        Ok((self.text("code_module")?, self.text("code_presentation")?, self.text("id_student")?))
    }
}
