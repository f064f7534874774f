// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/id_prop.h"

#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/ingest/csv_table.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {

absl::Status ReadIdProp(const IdPropRange& range, IdPropSink sink) {
  STOKER_ASSIGN_OR_RETURN(LineReader lines, LineReader::Open(range.path, range.begin_bytes, range.end_bytes, nullptr));
  CsvRecords records(std::move(lines));
  std::vector<absl::string_view> fields;
  while (true) {
    STOKER_ASSIGN_OR_RETURN(const bool more, records.Next(&fields));
    if (!more) return absl::OkStatus();
    STOKER_RETURN_IF_ERROR(sink(range.first_line + records.line(), fields));
  }
}

absl::StatusOr<std::string> FindStructureFile(const std::string& id_prop_path, absl::string_view id) {
  const std::filesystem::path folder = std::filesystem::path(id_prop_path).parent_path();
  constexpr absl::string_view kPatterns[][2] = {{"", ""},     {"", ".vasp"},   {"", ".cif"},    {"", ".poscar"},
                                                {"", ".xyz"}, {"", ".extxyz"}, {"POSCAR-", ""}, {"POSCAR-", ".vasp"}};
  for (const auto& [before, after] : kPatterns) {
    const std::filesystem::path path = folder / absl::StrCat(before, id, after);
    std::error_code ignored;
    if (!id.empty() && std::filesystem::is_regular_file(path, ignored)) return path.string();
  }
  return absl::NotFoundError(absl::StrCat("no structure file for ", Quoted(id)));
}

absl::StatusOr<std::vector<double>> IdPropTargets(const std::vector<absl::string_view>& fields,
                                                  const std::vector<std::string>& columns, absl::string_view place) {
  std::vector<size_t> picked;
  for (const std::string& column : columns) {
    size_t number;
    if (!absl::SimpleAtoi(column, &number) || number == 0 || number >= fields.size()) {
      return BadData(place, absl::StrCat("missing target: no column ", Quoted(column)),
                     absl::StrCat("--target takes numbers from 1 to ", fields.size() - 1, " here"));
    }
    picked.push_back(number);
  }
  for (size_t i = 1; columns.empty() && i < fields.size(); ++i) picked.push_back(i);
  std::vector<double> targets;
  for (const size_t i : picked) {
    double value = std::numeric_limits<double>::quiet_NaN();
    const absl::string_view text = fields[i];
    if (!text.empty() && absl::AsciiStrToLower(text) != "na" && !ParseValue(text, &value)) {
      return BadData(place, absl::StrCat("wrong target: ", Quoted(text), " is no number"),
                     "correct the line; id_prop.csv has no header");
    }
    targets.push_back(value);
  }
  return targets;
}

}  // namespace stoker::ingest
