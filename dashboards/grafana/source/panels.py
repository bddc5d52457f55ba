"""What dashboards are made of: data sources, queries, panels, variables; laid out from left to right on a grid of 24."""

import pathlib
import re

from grafana_foundation_sdk.builders import barchart, bargauge, common, dashboard, heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog import builder, variants
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync, DashboardLinkType, DataSourceRef, DynamicConfigValue, GridPos, Threshold, ThresholdsMode, VariableRefresh, VariableSort,
)

PROMETHEUS = DataSourceRef("prometheus", "weir-prometheus")
POSTGRES = DataSourceRef("grafana-postgresql-datasource", "weir-postgres")
CLICKHOUSE = DataSourceRef("grafana-clickhouse-datasource", "weir-clickhouse")

QUERIES = pathlib.Path(__file__).resolve().parents[3] / "sql" / "queries"

# Units of questions' heads, as Grafana calls them.
UNITS = {"seconds": "s", "milliseconds": "ms", "bytes": "bytes", "percent": "percent", "days": "d", "weeks": "none", "points": "none",
         "characters": "none", "MB": "decmbytes", "": "short"}

# What a value in a column leads to; time and tenant go along.
LINKS = {
    "user_id": ("The learner's page", "/d/weir-learner?${__url_time_range}&${tenant:queryparam}&var-user=${__value.raw:percentencode}"),
    "learning_path_id": ("The learning path", "/d/weir-path?${__url_time_range}&${tenant:queryparam}&var-path=${__value.raw:percentencode}"),
    "assessment_id": ("The assessment", "/d/weir-outcomes?${__url_time_range}&${tenant:queryparam}&var-assessment=${__value.raw:percentencode}"),
    "lane": ("The lane", "/d/weir-pipeline?${__url_time_range}&var-lane=${__value.raw:percentencode}"),
}

# "All", as a variable says it. Grafana puts it in as it stands for `sqlstring`, and encodes it for `percentencode`.
ALL = "'*'"

# What parameters of questions are, in each dialect; the empty text is all. Grafana's `sqlstring` doubles quotes, which is all that Postgres needs;
# ClickHouse also takes backslashes, so that a value comes percent-encoded, quotes included, and is decoded there.
WORDS = {
    POSTGRES.uid: {"from": "$__timeFrom()", "to": "$__timeTo()", "text": "coalesce(nullif(${{{0}:sqlstring}}, '*'), '')"},
    CLICKHOUSE.uid: {
        "from": "$__fromTime", "to": "$__toTime",
        "text": "coalesce(nullIf(decodeURLComponent('${{{0}:percentencode}}'), '\\'*\\''), '')",
    },
}


class Query(builder.Builder, variants.Dataquery):
    """A query of a data source that the library has no builder for, SQL in both cases."""

    def __init__(self, source, sql, is_series):
        self.source, self.sql, self.is_series = source, sql, is_series

    def build(self):
        return self

    def to_json(self):
        target = {"refId": "A", "datasource": self.source, "rawSql": self.sql}
        if self.source is POSTGRES:
            return target | {"rawQuery": True, "editorMode": "code", "format": "time_series" if self.is_series else "table"}
        kind = "timeseries" if self.is_series else "table"
        return target | {"editorType": "sql", "queryType": kind, "format": 0 if self.is_series else 1}


def words(source, sql, numbers=()):
    """Parameters of this repository's questions, `$name`, in Grafana's words; `numbers` are those that are typed in, or stay as they are."""
    known, numbers = WORDS[source.uid], dict(numbers)
    said = lambda m: known.get(m[1]) or numbers.get(m[1]) or known["text"].format(m[1])
    return re.sub(r"\$(?!__)(\w+)", said, sql)


class Question:
    """One of sql/queries."""

    def __init__(self, name):
        self.name = name
        text, _, of_read_models = (QUERIES / f"{name}.sql").read_text().partition("\n-- on: read-models\n")
        head = [line[3:] for line in text.splitlines() if line.startswith("--")]
        self.title = next(line[7:] for line in head if line.startswith("title: "))
        about = [line[7:] if line.startswith("about: ") else line.strip() for line in head if line.startswith(("about: ", "  "))]
        self.about = " ".join(about)
        self.columns = [(line[8:].split(" ", 2) + [""])[:3] for line in head if line.startswith("column: ")]
        body = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
        numbers = [line[11:].split(" ")[:3] for line in head if line.startswith("parameter: ")]
        numbers = {name: "${days}" if name == "days" else default for name, kind, default in numbers if kind == "integer"}
        # The read models are in every weir; ClickHouse need not be.
        self.source = POSTGRES if of_read_models else CLICKHOUSE
        self.sql = words(self.source, (of_read_models or body).strip(), numbers)
        self.note = f"-- weir ask {name}\n"

    def query(self, wrapped=None, is_series=False):
        """All of it, or `wrapped`, in which {} stands for it."""
        text = wrapped.format(f"(\n{self.sql}\n) AS question") if wrapped else self.sql
        return Query(self.source, self.note + text, is_series)


def decorate(panel, title, about, unit, thresholds=()):
    # No colour below the first step: what has no alert has no good or bad.
    colours = ["green", "orange", "red"][: len(thresholds) + 1] if len(thresholds) > 1 else ["green", "red"]
    steps = [Threshold(value=None, color=colours[0] if thresholds else "text")]
    steps += [Threshold(value=float(value), color=colour) for value, colour in zip(thresholds, colours[1:])]
    panel.title(title).description(about).unit(unit).no_value("nothing in this time")
    return panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))


def promql(expressions, is_instant=False):
    targets = []
    for letter, (expression, legend) in zip("ABCDEF", expressions):
        target = prometheus.Dataquery().ref_id(letter).expr(expression).legend_format(legend).datasource(PROMETHEUS)
        targets.append(target.instant() if is_instant else target.range())
    return targets


def metric(title, about, unit, *expressions, thresholds=(), width=8, height=7, stacked=False):
    """Lines over time, out of Prometheus: (expression, legend)."""
    panel = decorate(timeseries.Panel().datasource(PROMETHEUS), title, about, unit, thresholds)
    if thresholds:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(shapes.GraphThresholdsStyleMode.DASHED))
    if stacked:
        panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL)).fill_opacity(30)
    panel.min(0).targets(promql(expressions)).tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI))
    return panel, width, height


def now(title, about, unit, *expressions, thresholds=(), width=4, height=4):
    """One number, as Prometheus has it now."""
    panel = decorate(stat.Panel().datasource(PROMETHEUS), title, about, unit, thresholds)
    return panel.targets(promql(expressions, is_instant=True)), width, height


def number(title, about, unit, sql, thresholds=(), width=4, height=4):
    """One number out of the read models."""
    panel = decorate(stat.Panel().datasource(POSTGRES), title, about, unit, thresholds)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("/.*/").values(False))
    return panel.with_target(Query(POSTGRES, words(POSTGRES, sql), False)), width, height


def columns(panel, found):
    for name, kind, unit in found:
        properties = []
        if kind in ("integer", "number"):
            properties.append(DynamicConfigValue("unit", UNITS[unit]))
        if name in LINKS:
            title, url = LINKS[name]
            properties.append(DynamicConfigValue("links", [{"title": title, "url": url}]))
        if properties:
            panel.override_by_name(name, properties)


def rows(question, order=None, limit=500, width=12, height=9, title=None):
    """A question as a table."""
    asked = Question(question)
    panel = decorate(table.Panel().datasource(asked.source), title or asked.title, asked.about, "short")
    columns(panel, asked.columns)
    wrapped = f"SELECT * FROM {{}} ORDER BY {order} LIMIT {limit}" if order else f"SELECT * FROM {{}} LIMIT {limit}"
    return panel.with_target(asked.query(wrapped)).filterable(True), width, height


def sql_rows(title, about, sql, found, width=12, height=9):
    """A table out of the read models or the workflows' tables; `found` are its columns, as in a question's head."""
    panel = decorate(table.Panel().datasource(POSTGRES), title, about, "short")
    columns(panel, [(line.split(" ", 2) + [""])[:3] for line in found])
    return panel.with_target(Query(POSTGRES, words(POSTGRES, sql), False)).filterable(True), width, height


def daily(question, value, width=8, height=7, by=None, unit="short", time="day", title=None):
    """A question by day, as lines; summed over what it tells apart, or one line for each of `by`."""
    asked = Question(question)
    panel = decorate(timeseries.Panel().datasource(asked.source), title or asked.title, asked.about, unit).min(0)
    at = f"{time}::timestamptz" if asked.source is POSTGRES else f"toDateTime({time})"
    metric_of = f", {by} AS metric" if by else ""
    groups = "1, 2" if by else "1"
    wrapped = f'SELECT {at} AS time{metric_of}, sum({value})::float8 AS {value} FROM {{}} GROUP BY {groups} ORDER BY 1'
    if asked.source is CLICKHOUSE:
        wrapped = f"SELECT {at} AS time{metric_of}, toFloat64(sum({value})) AS {value} FROM {{}} GROUP BY {'time, metric' if by else 'time'} ORDER BY time"
    return panel.with_target(asked.query(wrapped, is_series=True)), width, height


def bars(question, x, values, width=8, height=8, unit="short", title=None, order=None, limit=50):
    """A question as bars, one for each `x`."""
    asked = Question(question)
    panel = decorate(barchart.Panel().datasource(asked.source), title or asked.title, asked.about, unit)
    text = f"{x}::text" if asked.source is POSTGRES else f"toString({x})"
    as_float = (lambda v: f"sum({v})::float8 AS {v}") if asked.source is POSTGRES else (lambda v: f"toFloat64(sum(q.{v})) AS {v}")
    wrapped = f"SELECT {text} AS {x}_label, {', '.join(map(as_float, values))} FROM {{}} GROUP BY {x} ORDER BY {order or x} LIMIT {limit}"
    if asked.source is CLICKHOUSE:
        wrapped = wrapped.replace("{}", "(SELECT * FROM {}) AS q")
    return panel.x_field(f"{x}_label").with_target(asked.query(wrapped)), width, height


def heat(title, about, unit, expression, width=12, height=8):
    """A histogram over time."""
    panel = decorate(heatmap.Panel().datasource(PROMETHEUS), title, about, unit)
    target = prometheus.Dataquery().ref_id("A").expr(expression).legend_format("{{le}}").datasource(PROMETHEUS).range()
    return panel.with_target(target.format("heatmap")).y_axis(heatmap.YAxisConfig().unit(unit)), width, height


def states(title, about, expression, legend, width=12, height=7):
    """Which of several states held when."""
    panel = decorate(statetimeline.Panel().datasource(PROMETHEUS), title, about, "short")
    return panel.targets(promql([(expression, legend)])), width, height


def gauge(title, about, unit, expression, legend, thresholds=(), width=8, height=7):
    """Bars of what Prometheus has now."""
    panel = decorate(bargauge.Panel().datasource(PROMETHEUS), title, about, unit, thresholds)
    return panel.targets(promql([(expression, legend)], is_instant=True)), width, height


def choice(name, label, source, query, all_value=None):
    """A variable whose values a query gives; with `all_value` all of them may be meant."""
    variable = dashboard.QueryVariable(name).label(label).datasource(source).query(words(source, query) if source is not PROMETHEUS else query)
    variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
    return variable.include_all(True).all_value(all_value) if all_value is not None else variable


def typed(name, label, default):
    """A variable that is typed."""
    return dashboard.TextBoxVariable(name).label(label).default_value(default)


# An empty text is every tenant; a question takes it so.
TENANT = ("tenant", "Tenant", POSTGRES, "SELECT DISTINCT tenant FROM user_read_model ORDER BY 1", ALL)
PATH = ("path", "Learning path", POSTGRES,
        "SELECT DISTINCT learning_path_id FROM learner_learning_paths WHERE ($tenant = '' OR tenant = $tenant) ORDER BY 1")
ASSESSMENT = ("assessment", "Assessment", POSTGRES,
              "SELECT DISTINCT assessment_id FROM assessment_results WHERE ($tenant = '' OR tenant = $tenant) ORDER BY 1", ALL)
LANE = ("lane", "Lane", PROMETHEUS, "label_values(weir_lane_lag_records, lane)", ".*")


def page(uid, title, about, variables, panels, since="now-30d", refresh="1m"):
    """A dashboard."""
    built = dashboard.Dashboard(title).uid(uid).description(about).tags(["weir"]).timezone("utc").refresh(refresh).time(since, "now").readonly()
    built.tooltip(DashboardCursorSync.CROSSHAIR)
    built.link(dashboard.DashboardLink("Weir").type(DashboardLinkType.DASHBOARDS).tags(["weir"]).as_dropdown(True).keep_time(True).include_vars(True))
    for variable in variables:
        built.with_variable(variable)
    number = y = 0
    for line in in_lines(panels):
        # As high as the highest one; the last one takes what is left.
        x, height = 0, max(height for _, _, height in line)
        for place, (panel, width, _) in enumerate(line, 1):
            number += 1
            width = 24 - x if place == len(line) else width
            built.with_panel(panel.id(number).grid_pos(GridPos(x=x, y=y, w=width, h=height)))
            x += width
        y += height
    return built.build()


def in_lines(panels):
    """Panels by lines of 24."""
    lines, wide = [[]], 0
    for panel in panels:
        if wide + panel[1] > 24:
            lines.append([])
            wide = 0
        lines[-1].append(panel)
        wide += panel[1]
    return lines
