// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/csv_reader.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/ingest/csv_table.h"
#include "server/ingest/shard_builder.h"
#include "server/ingest/text.h"
#include "server/ingest/timestamp.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

constexpr absl::string_view kTimeColumns[] = {"date", "datetime", "time", "timestamp", "ts"};
constexpr absl::string_view kMissingCells[] = {"", "na", "n/a", "null", "none"};  // and what ParseValue takes

bool IsOneOf(absl::string_view text, absl::Span<const absl::string_view> words) {
  return std::any_of(words.begin(), words.end(), [&](absl::string_view w) { return absl::EqualsIgnoreCase(text, w); });
}

bool ParseCell(absl::string_view cell, double* value) {
  if (ParseValue(cell, value)) return true;
  *value = std::numeric_limits<double>::quiet_NaN();
  return IsOneOf(cell, kMissingCells);
}

// Which column is what.
struct Columns {
  std::vector<std::string> names;
  std::vector<size_t> channels;  // in the order that they are stored in
  std::optional<size_t> time, working, label;
};

// Rows that are kept, in the order of the file.
struct Rows {
  std::vector<double> values;  // [rows, channels]
  std::vector<double> times;   // seconds; empty without a time column
  std::vector<uint64_t> lines;
  std::vector<uint64_t> labels;  // places in label_names; empty without a label column
  std::vector<std::string> label_names;
};

class CsvUnit {
 public:
  CsvUnit(const Unit& unit, LineReader reader) : unit_(unit), records_(std::move(reader)) {}

  absl::StatusOr<std::string> Read();

 private:
  absl::Status ReadHeader();
  absl::StatusOr<std::optional<size_t>> FindColumn(absl::string_view name, absl::string_view option) const;
  absl::Status ChooseChannels();
  absl::Status ReadRows();
  absl::StatusOr<bool> IsWorking(absl::string_view cell) const;
  absl::Status AddRow(absl::Span<const absl::string_view> fields);
  absl::Status AddLabel(absl::string_view label);
  absl::Status AddSegments(ShardBuilder* builder);
  absl::Status AddSegment(absl::Span<const size_t> rows, ShardBuilder* builder);
  v1::IngestOptions::Target ResolveTarget() const;

  const Unit& unit_;
  const v1::IngestOptions::Csv& csv_ = unit_.options().csv();
  CsvRecords records_;
  Columns columns_;
  Rows rows_;
  absl::flat_hash_map<std::string, uint64_t> label_places_;  // in rows_.label_names
  std::string file_label_;
  std::vector<double> segment_;          // scratch
  std::vector<uint64_t> segment_lines_;  // scratch
};

absl::StatusOr<std::optional<size_t>> CsvUnit::FindColumn(absl::string_view name, absl::string_view option) const {
  if (name.empty()) return std::optional<size_t>();
  const auto found = std::find(columns_.names.begin(), columns_.names.end(), name);
  if (found == columns_.names.end()) {
    return records_.Bad(absl::StrCat("no column ", Quoted(name)),
                        absl::StrCat(option, " takes of ", absl::StrJoin(columns_.names, ",").substr(0, 400)));
  }
  return std::optional<size_t>(static_cast<size_t>(found - columns_.names.begin()));
}

absl::Status CsvUnit::ReadHeader() {
  std::vector<absl::string_view> fields;
  STOKER_ASSIGN_OR_RETURN(const bool more, records_.Next(&fields));
  if (!more) return BadData(unit_.source(), "the file is empty", "remove it from the sources");
  double number;
  if (std::all_of(fields.begin(), fields.end(), [&](absl::string_view f) { return ParseValue(f, &number); })) {
    return records_.Bad("the first line holds numbers", "put a line with the names of the columns before it");
  }
  absl::flat_hash_set<std::string> seen;
  for (const absl::string_view field : fields) {
    std::string name = field.empty() ? absl::StrCat("column ", columns_.names.size()) : std::string(field);
    if (!IsUtf8(name)) return records_.Bad(absl::StrCat("column ", Quoted(name), " is not UTF-8"), "save it as UTF-8");
    if (!seen.insert(name).second) {
      return records_.Bad(absl::StrCat("column ", Quoted(name), " is there twice"), "rename one of them");
    }
    columns_.names.push_back(std::move(name));
  }
  STOKER_ASSIGN_OR_RETURN(columns_.time, FindColumn(csv_.time_column(), "--time-column"));
  for (size_t i = 0; !columns_.time && i < columns_.names.size(); ++i) {
    if (IsOneOf(columns_.names[i], kTimeColumns)) columns_.time = i;
  }
  if (csv_.gap_seconds() > 0 && !columns_.time) {
    return records_.Bad("no column of times, which --gap needs", "name it with --time-column");
  }
  STOKER_ASSIGN_OR_RETURN(columns_.working, FindColumn(csv_.working_column(), "--working-column"));
  STOKER_ASSIGN_OR_RETURN(columns_.label, FindColumn(csv_.label(), "--label"));
  return ChooseChannels();
}

absl::Status CsvUnit::ChooseChannels() {
  for (const std::string& name : unit_.options().channels()) {
    STOKER_ASSIGN_OR_RETURN(const std::optional<size_t> column, FindColumn(name, "--channels"));
    columns_.channels.push_back(*column);
  }
  if (!columns_.channels.empty()) return absl::OkStatus();
  for (size_t i = 0; i < columns_.names.size(); ++i) {
    const bool excluded =
        std::find(csv_.exclude().begin(), csv_.exclude().end(), columns_.names[i]) != csv_.exclude().end();
    if (!excluded && i != columns_.time && i != columns_.working && i != columns_.label) columns_.channels.push_back(i);
  }
  if (columns_.channels.empty())
    return records_.Bad("no columns are left as channels", "exclude fewer; fields are separated by ','");
  return absl::OkStatus();
}

absl::StatusOr<bool> CsvUnit::IsWorking(absl::string_view cell) const {
  double value;
  if (ParseCell(cell, &value)) return value == 1;
  if (absl::EqualsIgnoreCase(cell, "true")) return true;
  if (absl::EqualsIgnoreCase(cell, "false")) return false;
  return records_.Bad(absl::StrCat("column ", Quoted(csv_.working_column()), " is ", Quoted(cell)), "write 1 or 0");
}

absl::Status CsvUnit::ReadRows() {
  std::vector<absl::string_view> fields;
  while (true) {
    STOKER_ASSIGN_OR_RETURN(const bool more, records_.Next(&fields));
    if (!more) return absl::OkStatus();
    if (fields.size() != columns_.names.size()) {
      return records_.Bad(absl::StrCat(fields.size(), " fields, the header has ", columns_.names.size()),
                          "give each row all fields");
    }
    if (columns_.working) {
      STOKER_ASSIGN_OR_RETURN(const bool working, IsWorking(fields[*columns_.working]));
      if (!working) continue;
    }
    STOKER_RETURN_IF_ERROR(AddRow(fields));
  }
}

absl::Status CsvUnit::AddRow(absl::Span<const absl::string_view> fields) {
  for (const size_t column : columns_.channels) {
    double value;
    if (!ParseCell(fields[column], &value)) {
      const std::string& name = columns_.names[column];
      return records_.Bad(absl::StrCat("column ", Quoted(name), " is ", Quoted(fields[column]), ", not a number"),
                          absl::StrCat("correct it, or leave the column out with --exclude ", name));
    }
    rows_.values.push_back(value);
  }
  rows_.lines.push_back(records_.line());
  if (columns_.time) {
    double seconds;
    if (!ParseTimestamp(fields[*columns_.time], &seconds)) {
      return records_.Bad(absl::StrCat("time ", Quoted(fields[*columns_.time]), " in column ",
                                       Quoted(columns_.names[*columns_.time]), " is not a time"),
                          "write YYYY-MM-DD HH:MM:SS or seconds, or name another --time-column");
    }
    rows_.times.push_back(seconds);
  }
  return columns_.label ? AddLabel(fields[*columns_.label]) : absl::OkStatus();
}

absl::Status CsvUnit::AddLabel(absl::string_view label) {
  if (label.empty()) {
    return records_.Bad(absl::StrCat("the label in column ", Quoted(csv_.label()), " is empty"), "label each row");
  }
  const auto [place, added] = label_places_.try_emplace(std::string(label), rows_.label_names.size());
  if (added) rows_.label_names.emplace_back(label);
  rows_.labels.push_back(place->second);
  return absl::OkStatus();
}

absl::Status CsvUnit::AddSegments(ShardBuilder* builder) {
  const size_t count = rows_.lines.size();
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  if (columns_.time) {
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return rows_.times[a] < rows_.times[b]; });
  }
  size_t begin = 0;
  for (size_t i = 1; i <= count; ++i) {
    bool cut = i == count;
    if (!cut && csv_.gap_seconds() > 0) {
      cut = rows_.times[order[i]] - rows_.times[order[i - 1]] > csv_.gap_seconds();
    }
    if (!cut && columns_.label) cut = rows_.labels[order[i]] != rows_.labels[order[i - 1]];
    if (!cut) continue;
    STOKER_RETURN_IF_ERROR(AddSegment(absl::MakeConstSpan(order).subspan(begin, i - begin), builder));
    begin = i;
  }
  return absl::OkStatus();
}

absl::Status CsvUnit::AddSegment(absl::Span<const size_t> rows, ShardBuilder* builder) {
  const size_t channels = columns_.channels.size();
  segment_.resize(channels * rows.size());
  segment_lines_.resize(rows.size());
  for (size_t t = 0; t < rows.size(); ++t) {
    const double* row = &rows_.values[rows[t] * channels];
    for (size_t c = 0; c < channels; ++c) segment_[c * rows.size() + t] = row[c];
    segment_lines_[t] = rows_.lines[rows[t]];
  }
  Series series;
  series.length = rows.size();
  series.values = segment_;
  series.line = segment_lines_[0];
  series.point_lines = segment_lines_;
  series.label = columns_.label ? absl::string_view(rows_.label_names[rows_.labels[rows[0]]]) : file_label_;
  double value = 0;
  if (ResolveTarget() == v1::IngestOptions::TARGET_VALUE) {
    if (!ParseValue(series.label, &value) || !std::isfinite(value)) {
      return BadData(records_.reader().Place(series.line),
                     absl::StrCat("target ", Quoted(series.label), " is not a number"),
                     "correct it, or choose --target class or none");
    }
    series.target = absl::MakeConstSpan(&value, 1);
  }
  return builder->Add(series);
}

v1::IngestOptions::Target CsvUnit::ResolveTarget() const {
  const v1::IngestOptions::Target target = unit_.options().target();
  if (target != v1::IngestOptions::TARGET_UNSPECIFIED) return target;
  const bool labelled = csv_.label_from_file_name() || !csv_.label().empty();
  return labelled ? v1::IngestOptions::TARGET_CLASS : v1::IngestOptions::TARGET_NONE;
}

absl::StatusOr<std::string> CsvUnit::Read() {
  STOKER_RETURN_IF_ERROR(ReadHeader());
  if (csv_.label_from_file_name()) file_label_ = std::filesystem::path(unit_.source()).stem().string();
  ShardBuilder builder(unit_, {.by_line = true, .target = ResolveTarget(), .place = [this](uint64_t line) {
                                 return records_.reader().Place(line);
                               }});
  std::vector<std::string> names;
  for (const size_t column : columns_.channels) names.push_back(columns_.names[column]);
  STOKER_RETURN_IF_ERROR(builder.SetChannels(names, unit_.source()));
  for (const std::string& name : csv_.exclude()) {
    if (std::find(columns_.names.begin(), columns_.names.end(), name) == columns_.names.end()) {
      builder.Skip(absl::StrCat("--exclude names no column: ", name), 0);
    }
  }
  STOKER_RETURN_IF_ERROR(ReadRows());
  STOKER_RETURN_IF_ERROR(AddSegments(&builder));
  builder.summary().lines = records_.reader().lines();
  return builder.Finish();
}

}  // namespace

absl::StatusOr<std::string> ReadCsvUnit(const Unit& unit, const UnitProgress& progress) {
  STOKER_ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(unit.source(), 0, unit.end_bytes(), progress));
  return CsvUnit(unit, std::move(reader)).Read();
}

}  // namespace stoker::ingest
