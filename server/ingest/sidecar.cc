// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/sidecar.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/ingest/csv_table.h"
#include "server/ingest/element.h"
#include "server/ingest/file_bytes.h"
#include "server/ingest/npy_array.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

using nlohmann::json;

constexpr absl::string_view kIdOnce = "give each id once";
constexpr uint64_t kTableBytes = 16 << 20;
constexpr size_t kMaxFeatures = 100'000;

bool HasExtension(const std::string& path, absl::string_view extension) {
  return absl::AsciiStrToLower(std::filesystem::path(path).extension().string()) == extension;
}

// Where the texts of ids go; each id may be seen once.
class Wanted {
 public:
  explicit Wanted(const std::vector<std::string>& ids) {
    for (size_t i = 0; i < ids.size(); ++i) places_[ids[i]].push_back(i);
  }

  // Structures of this id; `twice` where the sidecar had it before.
  const std::vector<size_t>& Find(const std::string& id, bool* twice) {
    static const auto& none = *new std::vector<size_t>();
    *twice = !seen_.insert(id).second;
    const auto found = places_.find(id);
    return found == places_.end() ? none : found->second;
  }

 private:
  absl::flat_hash_map<std::string, std::vector<size_t>> places_;
  absl::flat_hash_set<std::string> seen_;
};

SidecarColumn EmptyColumn(const v1::Sidecar& sidecar, size_t structures) {
  SidecarColumn column;
  column.info.name = sidecar.name();
  column.bytes.resize(structures);
  column.there.resize(structures);
  return column;
}

absl::Status AddText(const std::string& place, const std::string& id, absl::string_view text, Wanted* wanted,
                     SidecarColumn* column) {
  if (!IsUtf8(text))
    return BadData(place, absl::StrCat("the text of ", Quoted(id), " is not UTF-8"), "save it as UTF-8");
  bool twice;
  for (const size_t i : wanted->Find(id, &twice)) {
    column->bytes[i] = std::string(text);
    column->there[i] = true;
  }
  return twice ? BadData(place, absl::StrCat("repeated id: ", Quoted(id)), kIdOnce) : absl::OkStatus();
}

absl::Status ReadCsvText(const std::string& path, Wanted* wanted, SidecarColumn* column) {
  STOKER_ASSIGN_OR_RETURN(const uint64_t size, SourceSize(path));
  STOKER_ASSIGN_OR_RETURN(LineReader lines, LineReader::Open(path, 0, size, nullptr));
  CsvRecords records(std::move(lines));
  std::vector<absl::string_view> fields;
  while (true) {
    STOKER_ASSIGN_OR_RETURN(const bool more, records.Next(&fields));
    if (!more) return absl::OkStatus();
    if (fields.size() != 2) {
      return records.Bad(absl::StrCat("wrong columns: ", fields.size(), " fields, there must be an id and a text"),
                         "quote texts that have commas: id,\"text\"");
    }
    const bool header = records.line() == 0 && absl::EqualsIgnoreCase(fields[0], "id");
    if (header && absl::EqualsIgnoreCase(fields[1], "text")) continue;
    STOKER_RETURN_IF_ERROR(
        AddText(absl::StrCat(path, ":", records.line() + 1), std::string(fields[0]), fields[1], wanted, column));
  }
}

// An id as text, and the text, of one line; false when it is not such an object.
bool ParseTextLine(absl::string_view line, std::string* id, std::string* text) {
  const json parsed = json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() || !parsed.contains("id") || !parsed.contains("text")) return false;
  const json& key = parsed["id"];
  if (!(key.is_string() || key.is_number_integer()) || !parsed["text"].is_string()) return false;
  *id = key.is_string() ? key.get<std::string>() : key.dump();
  *text = parsed["text"].get<std::string>();
  return true;
}

absl::Status ReadJsonText(const std::string& path, Wanted* wanted, SidecarColumn* column) {
  STOKER_ASSIGN_OR_RETURN(const uint64_t size, SourceSize(path));
  STOKER_ASSIGN_OR_RETURN(LineReader lines, LineReader::Open(path, 0, size, nullptr));
  absl::string_view line;
  while (true) {
    STOKER_ASSIGN_OR_RETURN(const bool more, lines.Next(&line));
    if (!more) return absl::OkStatus();
    if (Trim(line).empty()) continue;
    std::string id, text;
    if (!ParseTextLine(line, &id, &text)) {
      return lines.Bad("not an object with an id and a text", "write {\"id\": …, \"text\": …} on each line");
    }
    STOKER_RETURN_IF_ERROR(AddText(absl::StrCat(path, ":", lines.line() + 1), id, text, wanted, column));
  }
}

// Element types that stores hold, little-endian as in the file.
absl::StatusOr<std::string> StoreType(const NpyArray& array) {
  const NpyHeader& header = array.header();
  const std::string type = absl::StrCat(std::string(1, header.kind), header.item_bytes);
  constexpr absl::string_view kTypes[][2] = {{"f8", "F64"}, {"f4", "F32"}, {"f2", "F16"}, {"i8", "I64"},
                                             {"i4", "I32"}, {"u1", "U8"},  {"u2", "U16"}};
  for (const auto& [known, name] : kTypes) {
    const bool big = header.big_endian && header.item_bytes > 1;
    if (type == known && !big) return std::string(name);
  }
  return BadData(
      array.place(),
      absl::StrCat("element type ", type, header.big_endian ? ", big-endian," : "", " is not kept in stores"),
      "convert it with .astype(numpy.float32) before saving");
}

absl::StatusOr<SidecarColumn> OpenColumn(const v1::Sidecar& sidecar, const NpyArray& values, size_t structures) {
  SidecarColumn column = EmptyColumn(sidecar, structures);
  STOKER_ASSIGN_OR_RETURN(column.info.dtype, StoreType(values));
  const std::vector<uint64_t>& shape = values.header().shape;
  column.info.shape.assign(shape.begin() + 1, shape.end());
  return column;
}

absl::StatusOr<SidecarColumn> ReadRowsInOrder(const v1::Sidecar& sidecar, const SidecarKeys& keys) {
  STOKER_ASSIGN_OR_RETURN(NpyArray values, NpyArray::Open(sidecar.path(), ""));
  STOKER_ASSIGN_OR_RETURN(SidecarColumn column, OpenColumn(sidecar, values, keys.rows.size()));
  for (size_t i = 0; i < keys.rows.size(); ++i) {
    if (keys.rows[i] >= values.header().rows()) continue;
    STOKER_RETURN_IF_ERROR(values.ReadRows(keys.rows[i], 1, &column.bytes[i]));
    column.there[i] = true;
  }
  return column;
}

absl::StatusOr<SidecarColumn> ReadRowsById(const v1::Sidecar& sidecar, const SidecarKeys& keys) {
  STOKER_ASSIGN_OR_RETURN(NpyArray ids, NpyArray::Open(sidecar.path(), "id"));
  STOKER_ASSIGN_OR_RETURN(NpyArray values, NpyArray::Open(sidecar.path(), "value"));
  STOKER_RETURN_IF_ERROR(values.CheckContent());
  STOKER_ASSIGN_OR_RETURN(SidecarColumn column, OpenColumn(sidecar, values, keys.ids.size()));
  const uint64_t rows = ids.header().rows();
  if (ids.header().shape.size() != 1 || rows != values.header().rows()) {
    return BadData(sidecar.path(), absl::StrCat("wrong length: ", rows, " ids for ", values.header().rows(), " values"),
                   "give arrays id [M] and value [M, …]");
  }
  std::string id_bytes;
  STOKER_RETURN_IF_ERROR(ids.ReadRows(0, rows, &id_bytes));
  Wanted wanted(keys.ids);
  for (uint64_t row = 0; row < rows; ++row) {
    const std::string id = DecodeLabel(ids.header(), id_bytes.data() + row * ids.header().item_bytes);
    bool twice;
    for (const size_t i : wanted.Find(id, &twice)) {
      STOKER_RETURN_IF_ERROR(values.ReadRows(row, 1, &column.bytes[i]));
      column.there[i] = true;
    }
    if (twice) return BadData(ids.place(), absl::StrCat("repeated id: ", Quoted(id), " in row ", row), kIdOnce);
  }
  return column;
}

// Adds the row of one element; what is wrong with it, else empty.
std::string AddFeatures(const std::string& key, const json& row, AtomFeatures* features) {
  uint32_t z = 0;
  if (!absl::SimpleAtoi(key, &z)) z = AtomicNumber(key);
  if (z == 0 || z > kMaxAtomicNumber) return "is no element";
  if (!row.is_array() || row.empty() || row.size() > kMaxFeatures) return "has no array of numbers";
  if (features->width == 0) {
    features->width = row.size();
    features->values.resize((kMaxAtomicNumber + 1) * row.size());
    features->there.resize(kMaxAtomicNumber + 1);
  }
  if (row.size() != features->width) return absl::StrCat("has ", row.size(), " numbers, others ", features->width);
  for (size_t i = 0; i < row.size(); ++i) {
    if (!row[i].is_number() || !std::isfinite(row[i].get<double>())) return "has a value that is no number";
    features->values[z * features->width + i] = row[i].get<float>();
  }
  features->there[z] = true;
  return "";
}

}  // namespace

bool IsById(const v1::Sidecar& sidecar) { return !HasExtension(sidecar.path(), ".npy"); }

absl::StatusOr<SidecarColumn> ReadSidecar(const v1::Sidecar& sidecar, const SidecarKeys& keys) {
  if (HasExtension(sidecar.path(), ".npy")) return ReadRowsInOrder(sidecar, keys);
  if (HasExtension(sidecar.path(), ".npz")) return ReadRowsById(sidecar, keys);
  SidecarColumn column = EmptyColumn(sidecar, keys.ids.size());
  column.info.dtype = "TEXT";
  Wanted wanted(keys.ids);
  STOKER_RETURN_IF_ERROR(HasExtension(sidecar.path(), ".csv") ? ReadCsvText(sidecar.path(), &wanted, &column)
                                                              : ReadJsonText(sidecar.path(), &wanted, &column));
  return column;
}

absl::StatusOr<AtomFeatures> ReadAtomFeatures(const std::string& path) {
  STOKER_ASSIGN_OR_RETURN(const std::string bytes, ReadWholeFile(path, kTableBytes));
  const json parsed = json::parse(bytes, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() || parsed.empty()) {
    return BadData(path, "not a table of atom features", "write {\"1\": [numbers], \"2\": …} by atomic number");
  }
  AtomFeatures features;
  for (const auto& [key, row] : parsed.items()) {
    const std::string wrong = AddFeatures(key, row, &features);
    if (!wrong.empty()) return BadData(path, absl::StrCat("key ", Quoted(key), " ", wrong), "correct the table");
  }
  return features;
}

}  // namespace stoker::ingest
