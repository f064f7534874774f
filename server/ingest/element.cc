// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/element.h"

#include "absl/container/flat_hash_map.h"

namespace stoker::ingest {
namespace {

constexpr absl::string_view kSymbols[kMaxAtomicNumber] = {
    "H",  "He", "Li", "Be", "B",  "C",  "N",  "O",  "F",  "Ne", "Na", "Mg", "Al", "Si", "P",  "S",  "Cl",
    "Ar", "K",  "Ca", "Sc", "Ti", "V",  "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se",
    "Br", "Kr", "Rb", "Sr", "Y",  "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb",
    "Te", "I",  "Xe", "Cs", "Ba", "La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er",
    "Tm", "Yb", "Lu", "Hf", "Ta", "W",  "Re", "Os", "Ir", "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At",
    "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U",  "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es", "Fm", "Md", "No",
    "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og"};

absl::flat_hash_map<absl::string_view, uint8_t> MakeIndex() {
  absl::flat_hash_map<absl::string_view, uint8_t> index = {{"D", 1}};
  for (uint8_t z = 1; z <= kMaxAtomicNumber; ++z) index[ElementSymbol(z)] = z;
  return index;
}

}  // namespace

absl::string_view ElementSymbol(uint8_t atomic_number) { return kSymbols[atomic_number - 1]; }

uint8_t AtomicNumber(absl::string_view symbol) {
  static const auto& index = *new absl::flat_hash_map<absl::string_view, uint8_t>(MakeIndex());
  const auto found = index.find(symbol);
  return found == index.end() ? 0 : found->second;
}

}  // namespace stoker::ingest
