//! Is the code as a newcomer is told it is? Files of a crate do not import each other in a circle, and none is longer than is read at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;
use syn::{ItemMod, ItemUse, UseTree, Visibility};

/// A module within its crate, as names; empty: the crate's root.
type Module = Vec<String>;

/// "About 500".
const LINES_MAX: usize = 520;

/// Words that comments and READMEs do without: a process, the client, again.
const WORDS: [&str; 3] = ["nobody", "whoever", "anew"];

/// A user's name, in this file.
const NAMES_A_USER: &str = "jobs/src/server.rs";

fn source_directories() -> Vec<PathBuf> {
    let root = weir_tests::root();
    let pipeline = fs::read_dir(root.join("pipeline")).unwrap().map(|entry| entry.unwrap().path());
    let crates = pipeline.chain([root.join("jobs")]).map(|path| path.join("src"));
    crates.filter(|path| path.is_dir()).collect()
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false => found.extend(path.extension().is_some_and(|end| end == "rs").then_some(path)),
        }
    }
    found
}

fn module_of(source: &Path, file: &Path) -> Module {
    let name = file.strip_prefix(source).unwrap().with_extension("");
    let names: Module = name.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if names == ["lib"] || names == ["main"] { Vec::new() } else { names }
}

/// Collects what a file names of its own crate.
struct Names<'a> {
    module: &'a Module,
    modules: &'a BTreeSet<Module>,
    used: Vec<Module>,
    /// What others find here under a name, though it is elsewhere.
    passed_on: BTreeMap<String, Module>,
}

impl Names<'_> {
    /// A path from the crate's root, if it leads into the crate.
    fn absolute(&self, path: &[String]) -> Option<Module> {
        let supers = path.iter().take_while(|name| *name == "super").count();
        let rest = &path[supers..];
        let base = match rest.first()?.as_str() {
            _ if supers > 0 => &self.module[..self.module.len().checked_sub(supers)?],
            "crate" => return Some(rest[1..].to_vec()),
            "self" => return Some([self.module, &rest[1..]].concat()),
            child if self.modules.contains(&[self.module.as_slice(), &[child.to_owned()]].concat()) => self.module,
            _ => return None,
        };
        Some([base, rest].concat())
    }

    fn walk(&mut self, tree: &UseTree, before: &[String], is_public: bool) {
        let with = |name: String| [before, &[name]].concat();
        let (path, name) = match tree {
            UseTree::Path(path) => return self.walk(&path.tree, &with(path.ident.to_string()), is_public),
            UseTree::Group(group) => return group.items.iter().for_each(|item| self.walk(item, before, is_public)),
            UseTree::Name(name) => (with(name.ident.to_string()), name.ident.to_string()),
            UseTree::Rename(rename) => (with(rename.ident.to_string()), rename.rename.to_string()),
            UseTree::Glob(_) => (before.to_vec(), String::new()),
        };
        let Some(path) = self.absolute(&path) else { return };
        if is_public {
            self.passed_on.insert(name, path.clone());
        }
        self.used.push(path);
    }
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.walk(&item.tree, &[], !matches!(item.vis, Visibility::Inherited));
    }

    /// Tests within a file may use what they like.
    fn visit_item_mod(&mut self, _: &'ast ItemMod) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.used.extend(if names.len() > 1 { self.absolute(&names) } else { None });
        syn::visit::visit_path(self, path);
    }
}

/// The file in which something is declared: as far as a path names modules, then where a name is passed on to.
fn declared_in(
    path: &[String],
    modules: &BTreeSet<Module>,
    passed_on: &BTreeMap<Module, BTreeMap<String, Module>>,
) -> Module {
    let mut at = Module::new();
    for (index, name) in path.iter().enumerate() {
        let child = [at.as_slice(), std::slice::from_ref(name)].concat();
        if modules.contains(&child) {
            at = child;
        } else if let Some(elsewhere) = passed_on.get(&at).and_then(|names| names.get(name))
            && *elsewhere != path[..=index]
        {
            return declared_in(&[elsewhere, &path[index + 1..]].concat(), modules, passed_on);
        } else {
            break;
        }
    }
    at
}

/// Which files each file imports. A file and those in the directory of its name are one room: what goes on between them is not counted.
fn imports(source: &Path) -> BTreeMap<Module, BTreeSet<Module>> {
    let files: BTreeMap<Module, PathBuf> =
        sources(source).into_iter().map(|file| (module_of(source, &file), file)).collect();
    let modules: BTreeSet<Module> = files.keys().cloned().collect();
    let (mut used, mut passed_on) = (BTreeMap::new(), BTreeMap::new());
    for (module, file) in &files {
        let mut names = Names { module, modules: &modules, used: Vec::new(), passed_on: BTreeMap::new() };
        names.visit_file(&syn::parse_file(&fs::read_to_string(file).unwrap()).unwrap());
        used.insert(module.clone(), names.used);
        passed_on.insert(module.clone(), names.passed_on);
    }
    let is_one_room = |a: &Module, b: &Module| a.starts_with(b) || b.starts_with(a);
    let found = used.into_iter().map(|(module, paths)| {
        let declared = paths.iter().map(|path| declared_in(path, &modules, &passed_on));
        let others = declared.filter(|other| !is_one_room(&module, other)).collect();
        (module, others)
    });
    found.collect()
}

/// The shortest way from a file back to itself.
fn circle(start: &Module, imports: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<String>> {
    let (mut seen, mut open) = (BTreeSet::new(), VecDeque::from([vec![start.clone()]]));
    while let Some(way) = open.pop_front() {
        for next in &imports[way.last().unwrap()] {
            let way = [way.as_slice(), std::slice::from_ref(next)].concat();
            if next == start {
                return Some(way.iter().map(|module| module.join("::")).collect());
            }
            if seen.insert(next.clone()) {
                open.push_back(way);
            }
        }
    }
    None
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut edges = 0;
    for source in source_directories() {
        let imports = imports(&source);
        edges += imports.values().map(BTreeSet::len).sum::<usize>();
        let circles: Vec<_> = imports.keys().filter_map(|file| circle(file, &imports)).collect();
        assert!(circles.is_empty(), "{}: {}", source.display(), circles[0].join(" -> "));
    }
    assert!(edges > 200, "imports are not seen any more: {edges}");
}

#[test]
fn a_circle_is_found() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("lib.rs", "mod a; mod b; mod c; pub use c::Third;"),
        ("a.rs", "use crate::b::{self, Second}; fn f() { b::g() }"),
        ("b.rs", "pub fn g() { let _ = crate::Third; }"),
        ("c.rs", "use super::a; pub struct Third;"),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let imports = imports(dir.path());
    let found = circle(&vec!["a".to_owned()], &imports);
    assert_eq!(found, Some(["a", "b", "c", "a"].map(str::to_owned).to_vec()));
}

#[test]
fn no_file_is_longer_than_is_read_at_once() {
    for file in source_directories().iter().flat_map(|source| sources(source)) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", file.display());
    }
}

/// The words in a file's texts, those of its tests apart.
#[derive(Default)]
struct Words(BTreeSet<String>);

impl Words {
    fn of(file: &Path) -> BTreeSet<String> {
        let mut words = Self::default();
        words.visit_file(&syn::parse_file(&fs::read_to_string(file).unwrap()).unwrap());
        words.0
    }

    fn read(&mut self, text: &str) {
        self.0.extend(text.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned));
    }
}

impl<'ast> Visit<'ast> for Words {
    fn visit_item_mod(&mut self, _: &'ast ItemMod) {}

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.read(&text.value());
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        // What stands between quotes; names of Rust beside it have nothing to say here.
        call.tokens.to_string().split('"').skip(1).step_by(2).for_each(|text| self.read(text));
    }

    /// Documentation is text in an attribute.
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

/// Files that name many of the envelope's columns, and why they may. Any other takes them from the table.
const ENVELOPES: &[(&str, &str)] = &[
    ("pipeline/model/src/envelope.rs", "the table"),
    ("pipeline/model/src/wire/record_fields.rs", "reads the fields of a record into the struct"),
    ("pipeline/model/src/wire/fast.rs", "the same, in one pass; what it does not know goes the slow way"),
    ("pipeline/postgres/src/event_store.rs", "the event store's own table, by a migration"),
    ("pipeline/api/src/commands.rs", "the answer to a command, by names of its own"),
    ("pipeline/api/src/openapi.rs", "what HTTP shows of an event, which is decided field by field"),
];

/// A column that is added to the envelope is added to its table and the struct's reading: no file has another list of them.
#[test]
fn the_envelopes_columns_are_listed_once() {
    let columns = weir_model::envelope::COLUMNS;
    let root = weir_tests::root();
    let mut lists = BTreeMap::new();
    for file in source_directories().iter().flat_map(|source| sources(source)) {
        let words = Words::of(&file);
        let named = columns.iter().filter(|column| words.contains(column.name) || words.contains(column.field()));
        lists.insert(file.strip_prefix(&root).unwrap().to_owned(), named.map(|column| column.name).collect::<Vec<_>>());
    }
    for (file, why) in ENVELOPES {
        assert!(lists[Path::new(file)].len() > 6, "{file} is no list any more ({why})");
    }
    lists.retain(|file, named| named.len() > 6 && !ENVELOPES.iter().any(|(name, _)| Path::new(name) == file));
    assert!(lists.is_empty(), "more lists of the envelope's columns: {lists:#?}");
}

#[test]
fn prose_is_in_the_words_of_the_field() {
    let has_word = |line: &str| {
        let mut words = line.split(|c: char| !c.is_alphanumeric());
        words.any(|word| WORDS.iter().any(|odd| word.eq_ignore_ascii_case(odd)))
    };
    let root = weir_tests::root();
    let crates = source_directories();
    let readmes = crates.iter().map(|source| source.with_file_name("README.md"));
    let files = crates.iter().flat_map(|source| sources(source)).chain(readmes).chain([root.join("README.md")]);
    for file in files.filter(|file| file.exists() && *file != root.join(NAMES_A_USER)) {
        let is_prose = |line: &&str| file.extension().is_some_and(|end| end == "md") || line.contains("//");
        for line in fs::read_to_string(&file).unwrap().lines().filter(is_prose) {
            assert!(!has_word(line), "{}: {line}", file.display());
        }
    }
}
