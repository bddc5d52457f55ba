//! Questions of clients about the catalog that the libraries cannot plan. What is asked in them and has no answer here is taken out: of indexes and
//! keys, which history has none of, and what subqueries look up beside each row (defaults, sequences, collations, memberships).

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{EmptyRelation, LogicalPlan};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArguments, Select, SelectItem, SetExpr, Statement, Value, Visit, VisitMut,
    visit_expressions, visit_expressions_mut, visit_relations,
};

/// A plan without rows.
pub(crate) fn empty(schema: DFSchemaRef) -> LogicalPlan {
    LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema })
}

/// The plan of such a question; `None` for all other statements.
pub(crate) async fn plan(
    statement: &Statement,
    context: &SessionContext,
) -> Option<Result<LogicalPlan, DataFusionError>> {
    if let Some(plan) = about_indexes(statement) {
        return Some(plan);
    }
    let plannable = plannable(statement)?;
    let statement = parser::Statement::Statement(Box::new(plannable));
    Some(context.state().statement_to_plan(statement).await)
}

/// JDBC's `getPrimaryKeys` and `getIndexInfo` unfold the columns of indexes by a function that the libraries have not. History has no index and
/// no key, so there are no rows.
fn about_indexes(statement: &Statement) -> Option<Result<LogicalPlan, DataFusionError>> {
    let select = selected(statement)?;
    let from = select.from.iter().map(ToString::to_string).collect::<String>();
    if !from.contains("_pg_expandarray") {
        return None;
    }
    let name = |item: &SelectItem| {
        if let SelectItem::ExprWithAlias { alias, .. } = item {
            return alias.value.clone();
        }
        let words = item.to_string();
        words.rsplit('.').next().unwrap_or(&words).trim_matches('"').to_owned()
    };
    let fields: Vec<Field> =
        select.projection.iter().map(|item| Field::new(name(item), DataType::Utf8, true)).collect();
    Some(DFSchema::try_from(Schema::new(fields)).map(|schema| empty(Arc::new(schema))))
}

fn selected(statement: &Statement) -> Option<&Select> {
    let Statement::Query(query) = statement else { return None };
    let SetExpr::Select(select) = &*query.body else { return None };
    Some(select)
}

/// The question without what cannot be planned; `None` if it is none about the catalog, or can be planned as it is.
fn plannable(statement: &Statement) -> Option<Statement> {
    let is_catalogs =
        |name: &str| name == "unnest" || name.starts_with("pg_") || name.starts_with("information_schema.");
    let others = visit_relations(statement, |name| match is_catalogs(&name.to_string()) {
        true => ControlFlow::Continue(()),
        false => ControlFlow::Break(()),
    });
    if others.is_break() {
        return None;
    }
    let mut plannable = statement.clone();
    let Statement::Query(query) = &mut plannable else { return None };
    let SetExpr::Select(select) = &mut *query.body else { return None };
    let mut is_changed = false;
    for item in &mut select.projection {
        is_changed |= take_out(item, |expression| looks_up_rows(expression) || is_absent(expression));
    }
    is_changed |= take_out(&mut select.from, |expression| unfolds_an_index(expression) || is_absent(expression));
    if !is_changed {
        return None;
    }
    let (before, after) = (placeholders(statement), placeholders(&plannable));
    keep(&mut plannable, before.difference(&after));
    Some(plannable)
}

/// Puts NULL in the place of expressions; whether there were any.
fn take_out(of: &mut impl VisitMut, is_out: fn(&Expr) -> bool) -> bool {
    let mut is_changed = false;
    let visited = visit_expressions_mut(of, |expression| {
        if is_out(expression) {
            *expression = Expr::value(Value::Null);
            is_changed = true;
        }
        ControlFlow::<()>::Continue(())
    });
    visited.is_continue() && is_changed
}

fn named<'a>(expression: &'a Expr, names: &[&str]) -> Option<&'a Function> {
    let Expr::Function(function) = expression else { return None };
    let name = function.name.0.last()?.to_string().to_lowercase();
    names.contains(&name.as_str()).then_some(function)
}

/// `(SELECT …)` and `ARRAY(SELECT …)`.
fn looks_up_rows(expression: &Expr) -> bool {
    let is_of_query = |function: &Function| matches!(function.args, FunctionArguments::Subquery(_));
    matches!(expression, Expr::Subquery(_)) || named(expression, &["array"]).is_some_and(is_of_query)
}

/// Columns that the libraries' catalog has not, a function, and a list of options that was taken out before.
fn is_absent(expression: &Expr) -> bool {
    if let Expr::CompoundIdentifier(names) = expression {
        return names.last().is_some_and(|name| ["reloptions", "relacl"].contains(&name.value.as_str()));
    }
    let is_taken_out = |function: &Function| function.args.to_string().starts_with("(NULL || NULL");
    named(expression, &["pg_get_indexdef"]).is_some()
        || named(expression, &["array_to_string"]).is_some_and(is_taken_out)
}

fn unfolds_an_index(expression: &Expr) -> bool {
    let of_index = |function: &Function| {
        let arguments = function.args.to_string();
        ["indkey", "indclass", "conkey"].iter().any(|column| arguments.contains(column))
    };
    named(expression, &["unnest", "generate_subscripts"]).is_some_and(of_index)
}

fn placeholders(of: &impl Visit) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let visited = visit_expressions(of, |expression| {
        if let Expr::Value(value) = expression
            && let Value::Placeholder(name) = &value.value
        {
            found.insert(name.clone());
        }
        ControlFlow::<()>::Continue(())
    });
    if visited.is_break() { BTreeSet::new() } else { found }
}

/// A client sends a value for each parameter of its own text: those that were taken out stand in a condition that always holds.
fn keep<'a>(statement: &mut Statement, names: impl Iterator<Item = &'a String>) {
    let Statement::Query(query) = statement else { return };
    let SetExpr::Select(select) = &mut *query.body else { return };
    for name in names {
        let given = Expr::IsNull(Box::new(Expr::value(Value::Placeholder(name.clone()))));
        let holds = Expr::BinaryOp {
            left: Box::new(given.clone()),
            op: BinaryOperator::Or,
            right: Box::new(Expr::IsNotNull(Box::new(Expr::value(Value::Placeholder(name.clone()))))),
        };
        let holds = Expr::Nested(Box::new(holds));
        select.selection = Some(match select.selection.take() {
            Some(condition) => Expr::BinaryOp {
                left: Box::new(Expr::Nested(Box::new(condition))),
                op: BinaryOperator::And,
                right: Box::new(holds),
            },
            None => holds,
        });
    }
}
