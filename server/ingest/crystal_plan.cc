// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/crystal_plan.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/ingest/csv_table.h"
#include "server/ingest/json_reader.h"
#include "server/ingest/json_records.h"
#include "server/ingest/npy_array.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

constexpr absl::string_view kStructureColumn = "structure";

// Gathers structures into units; each Add goes to the unit at hand, or begins the next one.
class Cutter {
 public:
  Cutter(const Unit& whole, std::vector<Unit>* units) : whole_(whole), units_(units) {
    if (!units->empty()) next_row_ = units->back().first_row() + units->back().records();
  }

  // A structure at [begin, end) of the source, with its number for messages.
  Unit* Add(uint64_t begin, uint64_t end, uint64_t number, uint64_t name_bytes = 0) {
    Unit* unit = current_ == SIZE_MAX ? nullptr : &(*units_)[current_];
    name_bytes_ += name_bytes;
    if (unit == nullptr || unit->records() == kUnitRecords || end - unit->begin_bytes() > kUnitRecordBytes ||
        name_bytes_ > kUnitNameBytes) {
      current_ = units_->size();
      name_bytes_ = name_bytes;
      units_->push_back(whole_);
      unit = &units_->back();
      unit->set_begin_bytes(begin);
      unit->set_first_number(number);
      unit->set_first_row(next_row_);
    }
    unit->set_end_bytes(end);
    unit->set_records(unit->records() + 1);
    ++next_row_;
    return unit;
  }

 private:
  const Unit whole_;
  std::vector<Unit>* units_;
  size_t current_ = SIZE_MAX;
  uint64_t next_row_ = 0;
  uint64_t name_bytes_ = 0;
};

v1::IngestOptions::Crystal* CrystalOf(Unit* unit) { return unit->mutable_options()->mutable_crystal(); }

absl::Status PlanJarvis(const Source& source, Unit whole, std::vector<Unit>* units) {
  std::vector<JsonElement> elements;  // without text
  const absl::Status status = ScanJson(source.path, {}, [&](const JsonElement& e) -> absl::StatusOr<bool> {
    if (!e.key.empty()) return BadData(source.path, "not a list of records", "choose --format matbench for a table");
    if (e.index == 0 && CrystalOf(&whole)->id_key().empty()) {
      CrystalOf(&whole)->set_id_key(JsonReader().FindIdKey(e.text));
    }
    elements.push_back({{}, e.index, e.begin, e.end, {}});
    return true;
  });
  STOKER_RETURN_IF_ERROR(status);
  if (elements.empty()) return BadData(source.path, "no records in the list", "remove the file from the sources");
  Cutter cutter(whole, units);
  for (const JsonElement& e : elements) cutter.Add(e.begin, e.end, e.index);
  return absl::OkStatus();
}

absl::Status PlanMatbench(const Source& source, Unit whole, std::vector<Unit>* units) {
  std::vector<JsonElement> rows;
  JsonReader reader;
  const absl::Status status = ScanJson(source.path, {}, [&](const JsonElement& e) -> absl::StatusOr<bool> {
    if (e.key == "columns") whole.add_columns(reader.ReadId(e.text));
    if (e.key == "data") rows.push_back({{}, e.index, e.begin, e.end, {}});
    return true;
  });
  STOKER_RETURN_IF_ERROR(status);
  if (rows.empty() || whole.columns_size() == 0) {
    return BadData(source.path, "no table: 'columns' and 'data' are expected, as matminer writes them",
                   "choose --format jarvis for a list of records");
  }
  if (CrystalOf(&whole)->target().empty()) {
    const auto named = std::find(whole.columns().begin(), whole.columns().end(), kStructureColumn);
    const int structure = named == whole.columns().end() ? 0 : static_cast<int>(named - whole.columns().begin());
    for (int i = 0; i < whole.columns_size(); ++i) {
      if (i != structure) CrystalOf(&whole)->add_target(whole.columns(i));
    }
  }
  Cutter cutter(whole, units);
  for (const JsonElement& row : rows) cutter.Add(row.begin, row.end, row.index);
  return absl::OkStatus();
}

// What cannot be followed to the next frame goes into the last unit, whose reader says what is wrong.
absl::Status PlanExtxyz(const Source& source, const Unit& whole, std::vector<Unit>* units) {
  STOKER_ASSIGN_OR_RETURN(const uint64_t size, SourceSize(source.path));
  if (size == 0) return BadData(source.path, "the file is empty", "remove it from the sources");
  STOKER_ASSIGN_OR_RETURN(LineReader lines, LineReader::Open(source.path, 0, size, nullptr));
  Cutter cutter(whole, units);
  uint64_t number = 1;
  while (true) {
    absl::string_view line;
    STOKER_ASSIGN_OR_RETURN(bool more, lines.Next(&line));
    const uint64_t begin = more ? lines.line_offset() : size;
    const uint64_t first = number++;
    if (!more) break;
    if (Trim(line).empty()) continue;
    uint64_t atoms;
    const bool good = absl::SimpleAtoi(Trim(line), &atoms) && atoms < size;
    for (uint64_t i = 0; good && more && i <= atoms; ++i) {
      STOKER_ASSIGN_OR_RETURN(more, lines.Next(&line));
      ++number;
    }
    const uint64_t end = good && more ? lines.next_offset() : size;
    cutter.Add(begin, end, first);
    if (end == size) break;
  }
  return absl::OkStatus();
}

absl::Status PlanFiles(const Source& source, const Unit& whole, std::vector<Unit>* units) {
  Cutter cutter(whole, units);
  uint64_t begin = 0;
  uint64_t number = 0;
  for (const std::string& file : source.files) {
    STOKER_ASSIGN_OR_RETURN(const uint64_t size, SourceSize(file));
    const std::string name = std::filesystem::path(file).filename().string();
    cutter.Add(begin, begin + size, number++, name.size() + 8)->add_files(name);
    begin += size;
  }
  return absl::OkStatus();
}

absl::Status PlanIdProp(const Source& source, const Unit& whole, std::vector<Unit>* units) {
  STOKER_ASSIGN_OR_RETURN(const uint64_t size, SourceSize(source.path));
  STOKER_ASSIGN_OR_RETURN(LineReader lines, LineReader::Open(source.path, 0, size, nullptr));
  Cutter cutter(whole, units);
  absl::string_view line;
  uint64_t number = 0;
  while (true) {
    STOKER_ASSIGN_OR_RETURN(const bool more, lines.Next(&line));
    if (!more) return absl::OkStatus();
    ++number;
    if (!Trim(line).empty()) cutter.Add(lines.line_offset(), lines.next_offset(), number);
  }
}

}  // namespace

absl::Status PlanCrystals(const Source& source, const Unit& whole, std::vector<Unit>* units) {
  if (source.format == v1::ID_PROP) return PlanIdProp(source, whole, units);
  if (!source.files.empty()) return PlanFiles(source, whole, units);
  if (source.format == v1::JARVIS) return PlanJarvis(source, whole, units);
  if (source.format == v1::MATBENCH) return PlanMatbench(source, whole, units);
  return PlanExtxyz(source, whole, units);
}

absl::Status CheckSidecarRows(absl::Span<const Unit> units, const v1::IngestOptions& options) {
  for (const v1::Sidecar& sidecar : options.crystal().sidecar()) {
    if (!absl::EndsWith(sidecar.path(), ".npy")) continue;
    STOKER_ASSIGN_OR_RETURN(const NpyArray array, NpyArray::Open(sidecar.path(), ""));
    const uint64_t structures = units.empty() ? 0 : units.back().first_row() + units.back().records();
    if (array.header().rows() == structures) continue;
    return BadData(sidecar.path(),
                   absl::StrCat("wrong length: ", array.header().rows(), " rows for the ", structures,
                                " structures of the sources"),
                   "give one row for each structure, in their order, or an .npz with their ids");
  }
  return absl::OkStatus();
}

}  // namespace stoker::ingest
