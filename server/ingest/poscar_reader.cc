// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/poscar_reader.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/ingest/element.h"
#include "server/ingest/text.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

constexpr absl::string_view kNotPoscar = "correct the file, or remove it; a POSCAR is expected here";
constexpr uint64_t kLeastAtomBytes = 6;  // "0 0 0" and the end of the line

class PoscarReader {
 public:
  PoscarReader(absl::string_view text, const std::string& path) : lines_(text), path_(path) {}

  absl::StatusOr<Structure> Read();

 private:
  absl::Status Bad(absl::string_view reason, absl::string_view remedy = kNotPoscar) const {
    return BadData(absl::StrCat(path_, ":", lines_.line()), reason, remedy);
  }
  absl::StatusOr<std::vector<absl::string_view>> Next(absl::string_view what);
  absl::Status Numbers(absl::Span<const absl::string_view> fields, absl::string_view what, double* out) const;
  absl::Status ReadScale();
  absl::Status ReadLattice();
  absl::Status ReadSpecies();
  absl::Status ReadMode();
  absl::Status ReadAtoms();

  TextLines lines_;
  const std::string& path_;
  double scale_[3] = {};
  Structure structure_;
};

absl::StatusOr<std::vector<absl::string_view>> PoscarReader::Next(absl::string_view what) {
  absl::string_view line;
  if (!lines_.Next(&line)) return Bad(absl::StrCat("cut off: the file ends before ", what));
  return Fields(line);
}

absl::Status PoscarReader::Numbers(absl::Span<const absl::string_view> fields, absl::string_view what,
                                   double* out) const {
  if (fields.size() < 3) return Bad(absl::StrCat("not three numbers: ", what, " has ", fields.size()));
  for (size_t k = 0; k < 3; ++k) {
    if (!ParseValue(fields[k], &out[k])) return Bad(absl::StrCat("not a number: ", Quoted(fields[k]), " of ", what));
  }
  return absl::OkStatus();
}

absl::Status PoscarReader::ReadScale() {
  STOKER_ASSIGN_OR_RETURN(const auto fields, Next("the scale"));
  if (fields.empty() || !ParseValue(fields[0], &scale_[0])) {
    return Bad("not a number: the scale, second line of a POSCAR");
  }
  double more[2];
  const bool three = fields.size() >= 3 && ParseValue(fields[1], &more[0]) && ParseValue(fields[2], &more[1]);
  scale_[1] = three ? more[0] : scale_[0];
  scale_[2] = three ? more[1] : scale_[0];
  for (const double scale : scale_) {
    const bool good = std::isfinite(scale) && (three ? scale > 0 : scale != 0);
    if (!good) return Bad("wrong scale: it is zero, not finite, or one of three that is negative");
  }
  return absl::OkStatus();
}

absl::Status PoscarReader::ReadLattice() {
  Lattice& lattice = structure_.lattice;
  for (size_t row = 0; row < 3; ++row) {
    STOKER_ASSIGN_OR_RETURN(const auto fields, Next("the lattice"));
    STOKER_RETURN_IF_ERROR(Numbers(fields, "a lattice vector", &lattice[3 * row]));
  }
  if (scale_[0] < 0) {  // the volume is given
    const double volume = std::abs(Determinant(lattice));
    if (!(volume > 0)) return Bad("singular lattice: it has no volume that could be scaled");
    std::fill(scale_, scale_ + 3, std::cbrt(-scale_[0] / volume));
  }
  for (size_t i = 0; i < 9; ++i) lattice[i] *= scale_[i % 3];
  structure_.periodic = {true, true, true};
  return absl::OkStatus();
}

absl::Status PoscarReader::ReadSpecies() {
  STOKER_ASSIGN_OR_RETURN(const auto symbols, Next("the elements"));
  double number;
  if (symbols.empty() || ParseValue(symbols[0], &number)) {
    return Bad("no element symbols: a POSCAR of VASP 4", "add the line of symbols, above the numbers of atoms");
  }
  std::vector<uint8_t> elements;
  for (const absl::string_view symbol : symbols) {
    if (absl::StartsWith(symbol, "!") || absl::StartsWith(symbol, "#")) break;
    elements.push_back(AtomicNumber(symbol.substr(0, symbol.find_first_of("_/"))));
    if (elements.back() == 0) return Bad(absl::StrCat("unknown element: ", Quoted(symbol)));
  }
  STOKER_ASSIGN_OR_RETURN(const auto counts, Next("the numbers of atoms"));
  uint64_t atoms = 0;
  for (size_t i = 0; i < elements.size(); ++i) {
    uint64_t count;
    if (i >= counts.size() || !absl::SimpleAtoi(counts[i], &count)) {
      return Bad(absl::StrCat("wrong counts: ", elements.size(), " elements need as many numbers of atoms"));
    }
    const uint64_t room = lines_.bytes_left() / kLeastAtomBytes + 1;
    if (count > room || atoms + count > room) {
      return Bad(absl::StrCat("wrong counts: more than the ", room, " atoms that the rest of the file could hold"));
    }
    atoms += count;
    structure_.atomic_numbers.insert(structure_.atomic_numbers.end(), count, elements[i]);
  }
  uint64_t more;
  if (counts.size() > elements.size() && absl::SimpleAtoi(counts[elements.size()], &more)) {
    return Bad(absl::StrCat("wrong counts: more numbers of atoms than the ", elements.size(), " elements"));
  }
  return absl::OkStatus();
}

absl::Status PoscarReader::ReadMode() {
  STOKER_ASSIGN_OR_RETURN(auto fields, Next("Direct or Cartesian"));
  if (!fields.empty() && absl::ascii_tolower(static_cast<unsigned char>(fields[0][0])) == 's') {
    STOKER_ASSIGN_OR_RETURN(fields, Next("Direct or Cartesian"));
  }
  const char mode = fields.empty() ? ' ' : absl::ascii_tolower(static_cast<unsigned char>(fields[0][0]));
  if (mode != 'd' && mode != 'c' && mode != 'k') return Bad("neither Direct nor Cartesian: the line above the atoms");
  structure_.cartesian = mode != 'd';
  return absl::OkStatus();
}

absl::Status PoscarReader::ReadAtoms() {
  for (size_t i = 0; i < structure_.atoms(); ++i) {
    STOKER_ASSIGN_OR_RETURN(const auto fields, Next(absl::StrCat("atom ", i + 1, " of ", structure_.atoms())));
    double xyz[3];
    STOKER_RETURN_IF_ERROR(Numbers(fields, absl::StrCat("atom ", i + 1, " of ", structure_.atoms()), xyz));
    for (size_t k = 0; k < 3; ++k) structure_.coords.push_back(structure_.cartesian ? xyz[k] * scale_[k] : xyz[k]);
  }
  return absl::OkStatus();
}

absl::StatusOr<Structure> PoscarReader::Read() {
  STOKER_RETURN_IF_ERROR(Next("the comment").status());
  STOKER_RETURN_IF_ERROR(ReadScale());
  STOKER_RETURN_IF_ERROR(ReadLattice());
  STOKER_RETURN_IF_ERROR(ReadSpecies());
  STOKER_RETURN_IF_ERROR(ReadMode());
  STOKER_RETURN_IF_ERROR(ReadAtoms());
  return std::move(structure_);
}

}  // namespace

absl::StatusOr<Structure> ReadPoscar(absl::string_view text, const std::string& path) {
  return PoscarReader(text, path).Read();
}

}  // namespace stoker::ingest
