// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/json_reader.h"

#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/ingest/element.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

constexpr absl::string_view kCorrect = "correct the record, or remove it";
constexpr double kOccupancyTolerance = 1e-6;

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }
std::string_view View(absl::string_view text) { return {text.data(), text.size()}; }

// Reads one record; `place` is for messages.
class Record {
 public:
  explicit Record(absl::string_view place) : place_(place) {}

  absl::Status Bad(absl::string_view reason, absl::string_view remedy = kCorrect) const {
    return BadData(place_, reason, remedy);
  }
  absl::StatusOr<object> Object(element value, absl::string_view what) const {
    object out;
    return value.get(out) == simdjson::SUCCESS ? absl::StatusOr<object>(out) : Bad(absl::StrCat(what, " is no object"));
  }
  absl::StatusOr<array> Array(object from, absl::string_view key) const {
    array out;
    if (from.at_key(View(key)).get(out) == simdjson::SUCCESS) return out;
    return Bad(absl::StrCat("no array ", Quoted(key)));
  }
  absl::Status ThreeNumbers(element value, absl::string_view what, double* out) const {
    array numbers;
    if (value.get(numbers) != simdjson::SUCCESS || numbers.size() != 3) {
      return Bad(absl::StrCat("not three numbers: ", what));
    }
    for (const element number : numbers) {
      if (number.get(*out++) != simdjson::SUCCESS) return Bad(absl::StrCat("not a number: in ", what));
    }
    return absl::OkStatus();
  }
  absl::Status Lattice(array rows, Structure* structure) const {
    if (rows.size() != 3) return Bad("wrong lattice: there must be three vectors");
    double* out = structure->lattice.data();
    for (const element row : rows) {
      STOKER_RETURN_IF_ERROR(ThreeNumbers(row, "a lattice vector", out));
      out += 3;
    }
    structure->periodic = {true, true, true};
    return absl::OkStatus();
  }
  absl::Status AddElement(element symbol, Structure* structure) const {
    std::string_view text;
    const bool is_text = symbol.get(text) == simdjson::SUCCESS;
    const uint8_t z = is_text ? AtomicNumber(View(text)) : 0;
    const uint64_t number = structure->atoms() + 1;
    if (z == 0) return Bad(absl::StrCat("unknown element: ", is_text ? Quoted(View(text)) : "", " of atom ", number));
    structure->atomic_numbers.push_back(z);
    return absl::OkStatus();
  }
  absl::Status AddTarget(element value, absl::string_view name, Structure* structure) const {
    double number;
    bool flag;
    std::string_view text;
    if (value.get(number) == simdjson::SUCCESS) {
      structure->targets.push_back(number);
    } else if (value.get(flag) == simdjson::SUCCESS) {
      structure->targets.push_back(flag ? 1 : 0);
    } else if (value.is_null() || (value.get(text) == simdjson::SUCCESS && (text == "na" || text == "NaN"))) {
      structure->targets.push_back(std::numeric_limits<double>::quiet_NaN());
    } else {
      return Bad(absl::StrCat("wrong target: ", Quoted(name), " is no number"));
    }
    return absl::OkStatus();
  }
  absl::Status AddTargets(element value, absl::string_view name, bool alone, Structure* structure) const {
    array numbers;
    if (value.get(numbers) != simdjson::SUCCESS) return AddTarget(value, name, structure);
    if (!alone || numbers.size() == 0) {
      return Bad(absl::StrCat("wrong target: ", Quoted(name), " is an array, empty or one target of several"),
                 "choose one --target that is an array, or numbers");
    }
    for (const element number : numbers) STOKER_RETURN_IF_ERROR(AddTarget(number, name, structure));
    return absl::OkStatus();
  }
  absl::Status AddSite(object site, Structure* structure) const;

 private:
  const absl::string_view place_;
};

// One site of pymatgen: a species that is there for certain, and where.
absl::Status Record::AddSite(object site, Structure* structure) const {
  const std::string what = absl::StrCat("site ", structure->atoms() + 1);
  STOKER_ASSIGN_OR_RETURN(const array species, Array(site, "species"));
  double occupancy = 0;
  for (const element one : species) {
    if (one.at_key("occu").get(occupancy) != simdjson::SUCCESS) occupancy = 0;
  }
  if (species.size() != 1 || std::abs(occupancy - 1) > kOccupancyTolerance) {
    return Bad(absl::StrCat("fractional occupancy: ", what, " has ", species.size(), " species, the last one with ",
                            occupancy),
               "disordered structures have no graph: remove it, or order it first");
  }
  element symbol;
  if (species.at(0).at_key("element").get(symbol) != simdjson::SUCCESS) {
    return Bad(absl::StrCat("unknown element: ", what, " has none"));
  }
  STOKER_RETURN_IF_ERROR(AddElement(symbol, structure));
  element abc;
  if (site.at_key("abc").get(abc) != simdjson::SUCCESS) return Bad(absl::StrCat("no coordinates: ", what));
  double xyz[3];
  STOKER_RETURN_IF_ERROR(ThreeNumbers(abc, what, xyz));
  structure->coords.insert(structure->coords.end(), xyz, xyz + 3);
  return absl::OkStatus();
}

std::string IdText(element value) {
  std::string_view text;
  int64_t number;
  if (value.get(text) == simdjson::SUCCESS) return std::string(text);
  return value.get(number) == simdjson::SUCCESS ? absl::StrCat(number) : "";
}

absl::Status ReadAtoms(const Record& record, object atoms, Structure* structure) {
  STOKER_ASSIGN_OR_RETURN(const array lattice, record.Array(atoms, "lattice_mat"));
  STOKER_RETURN_IF_ERROR(record.Lattice(lattice, structure));
  STOKER_ASSIGN_OR_RETURN(const array elements, record.Array(atoms, "elements"));
  for (const element symbol : elements) STOKER_RETURN_IF_ERROR(record.AddElement(symbol, structure));
  STOKER_ASSIGN_OR_RETURN(const array coords, record.Array(atoms, "coords"));
  for (const element atom : coords) {
    double xyz[3];
    STOKER_RETURN_IF_ERROR(record.ThreeNumbers(atom, absl::StrCat("atom ", structure->coords.size() / 3 + 1), xyz));
    structure->coords.insert(structure->coords.end(), xyz, xyz + 3);
  }
  if (structure->coords.size() != 3 * structure->atoms()) {
    return record.Bad(absl::StrCat("wrong counts: ", structure->atoms(), " elements and ", structure->coords.size() / 3,
                                   " coordinates"));
  }
  element cartesian;
  if (atoms.at_key("cartesian").get(cartesian) != simdjson::SUCCESS) return absl::OkStatus();
  if (cartesian.get(structure->cartesian) != simdjson::SUCCESS)
    return record.Bad("'cartesian' is neither true nor false");
  return absl::OkStatus();
}

}  // namespace

struct JsonReader::State {
  simdjson::dom::parser parser;

  absl::StatusOr<element> Parse(absl::string_view text, absl::string_view place) {
    element out;
    const simdjson::error_code error = parser.parse(text.data(), text.size()).get(out);
    if (error == simdjson::SUCCESS) return out;
    return BadData(place, absl::StrCat("not JSON: ", simdjson::error_message(error)), kCorrect);
  }
};

JsonReader::JsonReader() : state_(std::make_unique<State>()) {}
JsonReader::~JsonReader() = default;

absl::StatusOr<Structure> JsonReader::ReadJarvis(absl::string_view text, absl::string_view place,
                                                 const RecordKeys& keys) {
  const Record record(place);
  Structure structure;
  STOKER_ASSIGN_OR_RETURN(const element root, state_->Parse(text, place));
  STOKER_ASSIGN_OR_RETURN(const object fields, record.Object(root, "the record"));
  object atoms;
  if (fields.at_key("atoms").get(atoms) != simdjson::SUCCESS) return record.Bad("no atoms: the record has no 'atoms'");
  STOKER_RETURN_IF_ERROR(ReadAtoms(record, atoms, &structure));
  element value;
  if (!keys.id.empty()) {
    if (fields.at_key(keys.id).get(value) != simdjson::SUCCESS || IdText(value).empty()) {
      return record.Bad(absl::StrCat("missing id: no text or number ", Quoted(keys.id)));
    }
    structure.id = IdText(value);
  }
  for (const std::string& key : keys.targets) {
    if (fields.at_key(key).get(value) != simdjson::SUCCESS) {
      return record.Bad(absl::StrCat("missing target: no key ", Quoted(key)));
    }
    STOKER_RETURN_IF_ERROR(record.AddTargets(value, key, keys.targets.size() == 1, &structure));
  }
  return structure;
}

absl::StatusOr<Structure> JsonReader::ReadMatbench(absl::string_view row, absl::string_view place,
                                                   const std::vector<std::string>& columns, const RecordKeys& keys) {
  const Record record(place);
  Structure structure;
  STOKER_ASSIGN_OR_RETURN(const element root, state_->Parse(row, place));
  array values;
  if (root.get(values) != simdjson::SUCCESS || values.size() != columns.size()) {
    return record.Bad(
        absl::StrCat("wrong counts: the row does not have the ", columns.size(), " values of the columns"));
  }
  object crystal;
  bool found = false;
  for (const element value : values) found = found || value.get(crystal) == simdjson::SUCCESS;
  if (!found) return record.Bad("no structure: no value of the row is one");
  object lattice;
  if (crystal.at_key("lattice").get(lattice) != simdjson::SUCCESS) return record.Bad("no lattice in the structure");
  STOKER_ASSIGN_OR_RETURN(const array matrix, record.Array(lattice, "matrix"));
  STOKER_RETURN_IF_ERROR(record.Lattice(matrix, &structure));
  STOKER_ASSIGN_OR_RETURN(const array sites, record.Array(crystal, "sites"));
  for (const element site : sites) {
    STOKER_ASSIGN_OR_RETURN(const object fields, record.Object(site, "a site"));
    STOKER_RETURN_IF_ERROR(record.AddSite(fields, &structure));
  }
  for (const std::string& name : keys.targets) {
    const auto at = std::find(columns.begin(), columns.end(), name);
    if (at == columns.end()) return record.Bad(absl::StrCat("missing target: no column ", Quoted(name)));
    const element value = values.at(static_cast<size_t>(at - columns.begin())).value_unsafe();
    STOKER_RETURN_IF_ERROR(record.AddTargets(value, name, keys.targets.size() == 1, &structure));
  }
  return structure;
}

std::string JsonReader::ReadId(absl::string_view json) {
  const absl::StatusOr<element> value = state_->Parse(json, "");
  return value.ok() ? IdText(*value) : "";
}

std::string JsonReader::FindIdKey(absl::string_view record) {
  const absl::StatusOr<element> root = state_->Parse(record, "");
  for (const absl::string_view key : kIdKeys) {
    element value;
    if (root.ok() && root->at_key(View(key)).get(value) == simdjson::SUCCESS) return std::string(key);
  }
  return "";
}

}  // namespace stoker::ingest
