// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/cif_reader.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <gemmi/cif.hpp>
#include <gemmi/numb.hpp>
#include <gemmi/symmetry.hpp>
#include <gemmi/unitcell.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/ingest/element.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

namespace cif = gemmi::cif;

constexpr absl::string_view kCorrect = "correct the block, or remove it";
constexpr double kSameAtom = 0.1;  // Å: coordinates are often written with three or four digits
constexpr double kOccupancyTolerance = 1e-3;
constexpr size_t kMaxImages = 100'000;  // sites times operations
constexpr size_t kMaxOperations = 192 * 4;

// The value of a tag, without quotation marks; empty for "?", "." and where there is none.
std::string Value(cif::Block& block, const char* tag) {
  const std::string* value = block.find_value(tag);
  return value == nullptr || cif::is_null(*value) ? "" : cif::as_string(*value);
}

// Whether gemmi's own parser takes it without overflow: x, y, z, signs and short fractions.
bool IsTriplet(absl::string_view text) {
  size_t digits = 0;
  for (const char c : text) {
    digits = absl::ascii_isdigit(static_cast<unsigned char>(c)) ? digits + 1 : 0;
    if (digits > 2 || !absl::StrContains("xyzXYZ+-*/, 0123456789", absl::string_view(&c, 1))) return false;
  }
  return std::count(text.begin(), text.end(), ',') == 2;
}

class BlockReader {
 public:
  BlockReader(cif::Block* block, const std::string& place) : block_(*block), place_(place) {}

  absl::StatusOr<Structure> Read();

 private:
  absl::Status Bad(absl::string_view reason, absl::string_view remedy = kCorrect) const {
    return BadData(place_, reason, remedy);
  }
  absl::Status ReadCell();
  absl::Status ReadOperations();
  absl::Status AddGroup(const gemmi::GroupOps& group);
  absl::Status ReadSites();
  absl::StatusOr<uint8_t> Element(size_t site, cif::Column& types, cif::Column& labels) const;
  absl::Status CheckOccupancy() const;
  absl::Status Expand();
  bool IsThere(const std::array<double, 3>& at, uint8_t element) const;

  cif::Block& block_;
  const std::string& place_;
  std::vector<gemmi::Op> operations_;
  std::vector<uint8_t> elements_;  // of the sites
  std::vector<std::array<double, 3>> sites_;
  Structure structure_;
};

absl::Status BlockReader::ReadCell() {
  constexpr const char* kTags[6] = {"_cell_length_a",    "_cell_length_b",   "_cell_length_c",
                                    "_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma"};
  double cell[6];
  for (size_t i = 0; i < 6; ++i) {
    const std::string text = Value(block_, kTags[i]);
    cell[i] = text.empty() ? std::nan("") : cif::as_number(text);
    const double limit = i < 3 ? kMaxCoordinate : 180;
    if (!(cell[i] > 0 && cell[i] < limit)) {
      return Bad(absl::StrCat("wrong cell: ", kTags[i], " is ", text.empty() ? "missing" : Quoted(text)));
    }
  }
  gemmi::UnitCell unit_cell;
  unit_cell.set(cell[0], cell[1], cell[2], cell[3], cell[4], cell[5]);
  for (int row = 0; row < 3; ++row) {
    for (int k = 0; k < 3; ++k) structure_.lattice[static_cast<size_t>(3 * row + k)] = unit_cell.orth.mat[k][row];
  }
  for (const double value : structure_.lattice) {
    if (!std::isfinite(value)) return Bad("singular lattice: no cell has these angles");
  }
  if (LatticeHeights(structure_.lattice)[2] < kMinLatticeHeight) return Bad("singular lattice: the cell has no volume");
  structure_.periodic = {true, true, true};
  return absl::OkStatus();
}

absl::Status BlockReader::AddGroup(const gemmi::GroupOps& group) {
  for (const gemmi::Op& op : group.sym_ops) {
    for (const gemmi::Op::Tran& centering : group.cen_ops) operations_.push_back(op.add_centering(centering));
  }
  return absl::OkStatus();
}

absl::Status BlockReader::ReadOperations() {
  for (const char* tag : {"_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz"}) {
    for (const std::string& quoted : block_.find_values(tag)) {
      const std::string text = cif::as_string(quoted);
      if (!IsTriplet(text)) return Bad(absl::StrCat("wrong symmetry: ", Quoted(text), " is no operation"));
      if (operations_.size() >= kMaxOperations) return Bad("wrong symmetry: more operations than any space group has");
      operations_.push_back(gemmi::parse_triplet(text));
    }
    if (!operations_.empty()) return absl::OkStatus();
  }
  for (const char* tag : {"_space_group_name_Hall", "_symmetry_space_group_name_Hall"}) {
    const std::string hall = Value(block_, tag);
    if (!hall.empty()) return AddGroup(gemmi::symops_from_hall(hall.c_str()));
  }
  std::string named;
  for (const char* tag : {"_space_group_name_H-M_alt", "_symmetry_space_group_name_H-M", "_space_group_IT_number",
                          "_symmetry_Int_Tables_number"}) {
    const std::string name = Value(block_, tag);
    if (name.empty()) continue;
    named = name;
    const double alpha = cif::as_number(Value(block_, "_cell_angle_alpha"));
    const double gamma = cif::as_number(Value(block_, "_cell_angle_gamma"));
    const gemmi::SpaceGroup* group = gemmi::find_spacegroup_by_name(name, alpha, gamma);
    if (group != nullptr) return AddGroup(group->operations());
  }
  if (!named.empty()) {
    return Bad(absl::StrCat("unknown space group: ", Quoted(named)), "list its operations in the file");
  }
  operations_.push_back(gemmi::Op::identity());
  return absl::OkStatus();
}

// A type symbol is all of an element's symbol, in any case, with a charge; a label begins with one.
absl::StatusOr<uint8_t> BlockReader::Element(size_t site, cif::Column& types, cif::Column& labels) const {
  const bool typed = types.length() > 0;
  const std::string text = cif::as_string(typed ? types.at(static_cast<int>(site)) : labels.at(static_cast<int>(site)));
  size_t letters = 0;
  while (letters < text.size() && absl::ascii_isalpha(static_cast<unsigned char>(text[letters]))) ++letters;
  std::string two = absl::AsciiStrToLower(text.substr(0, std::min<size_t>(letters, 2)));
  if (!two.empty()) two[0] = absl::ascii_toupper(static_cast<unsigned char>(two[0]));
  const uint8_t first = AtomicNumber(two.substr(0, 1)), both = AtomicNumber(two);
  uint8_t element = typed && letters > 2 ? 0 : both;
  if (!typed && letters > 1 && text.substr(0, 2) != two) {  // CA: calcium, or carbon of an amino acid
    if (both != 0 && first != 0) {
      return Bad(absl::StrCat("ambiguous element: ", Quoted(text), " may be ", two, " or ", two.substr(0, 1)),
                 "add _atom_site_type_symbol");
    }
    element = std::max(first, both);
  } else if (!typed && element == 0) {
    element = first;
  }
  if (element == 0) return Bad(absl::StrCat("unknown element: ", Quoted(text), " of site ", site + 1));
  return element;
}

absl::Status BlockReader::CheckOccupancy() const {
  size_t site = 0;
  for (const std::string& text : block_.find_values("_atom_site_occupancy")) {
    ++site;
    const double occupancy = cif::is_null(text) ? 1 : cif::as_number(text);
    if (!(std::abs(occupancy - 1) <= kOccupancyTolerance)) {
      return Bad(absl::StrCat("fractional occupancy: ", Quoted(text), " of site ", site),
                 "disordered structures have no graph: remove it, or order it first");
    }
  }
  return absl::OkStatus();
}

absl::Status BlockReader::ReadSites() {
  const bool cartesian = block_.find_values("_atom_site_fract_x").length() == 0;
  constexpr const char* kFraction[3] = {"_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z"};
  constexpr const char* kCartesian[3] = {"_atom_site_Cartn_x", "_atom_site_Cartn_y", "_atom_site_Cartn_z"};
  cif::Column xyz[3], types = block_.find_values("_atom_site_type_symbol");
  cif::Column labels = block_.find_values("_atom_site_label");
  for (size_t k = 0; k < 3; ++k) xyz[k] = block_.find_values(cartesian ? kCartesian[k] : kFraction[k]);
  const int count = xyz[0].length();
  const bool named = types.length() == count || (types.length() == 0 && labels.length() == count);
  if (count == 0 || xyz[1].length() != count || xyz[2].length() != count || !named) {
    return Bad("wrong counts: each atom site needs _atom_site_fract_x, _y, _z, and a type symbol or label");
  }
  if (cartesian && block_.has_tag("_atom_sites_Cartn_tran_matrix_11")) {
    return Bad("Cartesian sites with axes of their own: _atom_sites_Cartn_tran_matrix",
               "give _atom_site_fract_x, _y, _z");
  }
  const Lattice inverse = InverseLattice(structure_.lattice);
  for (int i = 0; i < count; ++i) {
    std::array<double, 3> at;
    for (size_t k = 0; k < 3; ++k) {
      at[k] = cif::as_number(xyz[k].at(i));
      if (!(std::abs(at[k]) <= kMaxCoordinate)) {
        return Bad(absl::StrCat("coordinate out of range: ", Quoted(xyz[k].at(i)), " of site ", i + 1));
      }
    }
    STOKER_ASSIGN_OR_RETURN(const uint8_t element, Element(static_cast<size_t>(i), types, labels));
    elements_.push_back(element);
    sites_.push_back(cartesian ? Transform(at.data(), inverse) : at);
  }
  return absl::OkStatus();
}

bool BlockReader::IsThere(const std::array<double, 3>& at, uint8_t element) const {
  for (size_t i = 0; i < structure_.atoms(); ++i) {
    if (structure_.atomic_numbers[i] != element) continue;
    double d[3];
    for (size_t k = 0; k < 3; ++k) {
      d[k] = at[k] - structure_.coords[3 * i + k];
      d[k] -= std::round(d[k]);
    }
    const std::array<double, 3> r = Transform(d, structure_.lattice);
    if (r[0] * r[0] + r[1] * r[1] + r[2] * r[2] < kSameAtom * kSameAtom) return true;
  }
  return false;
}

absl::Status BlockReader::Expand() {
  if (sites_.size() * operations_.size() > kMaxImages) {
    return Bad(absl::StrCat("too many atoms: ", sites_.size(), " sites by ", operations_.size(), " operations"),
               "remove the structure");
  }
  for (size_t site = 0; site < sites_.size(); ++site) {
    for (const gemmi::Op& operation : operations_) {
      std::array<double, 3> at = operation.apply_to_xyz(sites_[site]);
      for (double& value : at) value -= std::floor(value);
      if (operations_.size() > 1 && IsThere(at, elements_[site])) continue;
      structure_.atomic_numbers.push_back(elements_[site]);
      structure_.coords.insert(structure_.coords.end(), at.begin(), at.end());
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Structure> BlockReader::Read() {
  STOKER_RETURN_IF_ERROR(ReadCell());
  STOKER_RETURN_IF_ERROR(CheckOccupancy());
  STOKER_RETURN_IF_ERROR(ReadOperations());
  STOKER_RETURN_IF_ERROR(ReadSites());
  STOKER_RETURN_IF_ERROR(Expand());
  return std::move(structure_);
}

bool HasSites(cif::Block& block) {
  return block.find_values("_atom_site_label").length() > 0 || block.find_values("_atom_site_type_symbol").length() > 0;
}

absl::StatusOr<Structure> ReadBlock(cif::Block* block, const std::string& place) {
  try {
    return BlockReader(block, place).Read();
  } catch (const std::exception& error) {
    return BadData(place, absl::StrCat("malformed block: ", Quoted(error.what())), kCorrect);
  }
}

}  // namespace

absl::Status ReadCif(absl::string_view text, const std::string& path, StructureSink sink) {
  cif::Document document;
  try {
    document = cif::read_memory(text.data(), text.size(), path.c_str());
  } catch (const std::exception& error) {  // its message begins with file:line:column
    absl::string_view message = error.what();
    absl::ConsumePrefix(&message, path);
    const size_t line = message.find_first_not_of(":0123456789");
    return BadData(absl::StrCat(path, message.substr(0, message.find(':', 1))),
                   absl::StrCat("not CIF: ", line == message.npos ? "" : message.substr(line)), "correct the file");
  }
  size_t found = 0;
  for (cif::Block& block : document.blocks) found += HasSites(block) ? 1 : 0;
  if (found == 0) return BadData(path, "no atom sites: no data block has any", "remove the file from the sources");
  for (cif::Block& block : document.blocks) {
    if (!HasSites(block)) continue;
    const int line = std::max(block.items.front().line_number, 1);
    absl::StatusOr<Structure> structure = ReadBlock(&block, absl::StrCat(path, ":", line));
    if (structure.ok() && found > 1) structure->id = block.name;
    STOKER_RETURN_IF_ERROR(sink(static_cast<uint64_t>(line), std::move(structure)));
  }
  return absl::OkStatus();
}

}  // namespace stoker::ingest
