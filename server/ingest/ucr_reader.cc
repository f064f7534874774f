// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/ucr_reader.h"

#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/ingest/shard_builder.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

// The next field of *rest, which is cut off; for spaces, runs of them are one separator.
absl::string_view TakeField(char separator, absl::string_view* rest) {
  const size_t stop = rest->find(separator);
  const absl::string_view field = rest->substr(0, stop);
  rest->remove_prefix(stop == absl::string_view::npos ? rest->size() : stop + 1);
  if (separator == ' ') {
    while (!rest->empty() && rest->front() == ' ') rest->remove_prefix(1);
  }
  return Trim(field);
}

absl::Status ParseLine(const LineReader& reader, absl::string_view line, absl::string_view* label,
                       std::vector<double>* values) {
  while (!line.empty() && line.back() == ' ') line.remove_suffix(1);
  const char separator = line.find('\t') != absl::string_view::npos  ? '\t'
                         : line.find(',') != absl::string_view::npos ? ','
                                                                     : ' ';
  *label = TakeField(separator, &line);
  values->clear();
  while (!line.empty()) {
    const absl::string_view field = TakeField(separator, &line);
    double value = std::numeric_limits<double>::quiet_NaN();
    if (!field.empty() && !ParseValue(field, &value)) {
      return reader.Bad(absl::StrCat("value ", values->size(), " is ", Quoted(field), ", not a number"),
                        "a line is a label and numbers; name the --format if this is not a UCR file");
    }
    values->push_back(value);
  }
  while (!values->empty() && std::isnan(values->back())) values->pop_back();
  if (values->empty()) return reader.Bad("no values after the label", "remove the line");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadUcrUnit(const Unit& unit, const UnitProgress& progress) {
  STOKER_ASSIGN_OR_RETURN(LineReader reader,
                          LineReader::Open(unit.source(), unit.begin_bytes(), unit.end_bytes(), progress));
  v1::IngestOptions::Target target = unit.options().target();
  if (target == v1::IngestOptions::TARGET_UNSPECIFIED) target = v1::IngestOptions::TARGET_CLASS;
  ShardBuilder builder(
      unit, {.by_line = true, .target = target, .place = [&reader](uint64_t line) { return reader.Place(line); }});
  STOKER_RETURN_IF_ERROR(builder.SetChannels({"0"}, unit.source()));
  std::vector<double> values;
  absl::string_view line;
  while (true) {
    STOKER_ASSIGN_OR_RETURN(const bool more, reader.Next(&line));
    if (!more) break;
    while (!line.empty() && line.front() == ' ') line.remove_prefix(1);  // but not a tab: it ends an empty label
    if (Trim(line).empty() || line[0] == '#') continue;
    Series series;
    STOKER_RETURN_IF_ERROR(ParseLine(reader, line, &series.label, &values));
    double value = 0;
    if (target == v1::IngestOptions::TARGET_VALUE) {
      if (!ParseValue(series.label, &value) || !std::isfinite(value)) {
        return reader.Bad(absl::StrCat("target ", Quoted(series.label), " is not a finite number"),
                          "correct it, or choose --target class or none");
      }
      series.target = absl::MakeConstSpan(&value, 1);
    }
    series.line = reader.line();
    series.length = values.size();
    series.values = values;
    STOKER_RETURN_IF_ERROR(builder.Add(series));
  }
  builder.summary().lines = reader.lines();
  return builder.Finish();
}

}  // namespace stoker::ingest
