// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/cif_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/ingest/structures.h"

namespace stoker::ingest {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pointwise;
using ::testing::SizeIs;

std::string Block(const std::string& symmetry, const std::string& sites, const std::string& name = "one") {
  return absl::StrCat("data_", name,
                      "\n_cell_length_a 4.0(1)\n_cell_length_b 4\n_cell_length_c 4\n_cell_angle_alpha 90\n"
                      "_cell_angle_beta 90\n_cell_angle_gamma 90\n",
                      symmetry, "loop_\n_atom_site_label\n_atom_site_type_symbol\n", sites);
}
constexpr char kFractions[] = "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n";
constexpr char kCentred[] =
    "loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'\n'x+1/2, y+1/2, z+1/2'\n_symmetry_space_group_name_H-M 'P 1'\n";

std::string Iron(const std::string& symmetry) { return Block(symmetry, absl::StrCat(kFractions, "Fe1 Fe 0 0 0\n")); }

TEST(CifReader, ListedOperations_FillTheCellWhateverTheGroupIsCalled) {
  const Found found = Cif(Iron(kCentred));
  ASSERT_THAT(found, SizeIs(1));
  ASSERT_OK(found[0]);
  EXPECT_THAT(found[0]->atomic_numbers, ElementsAre(26, 26));
  EXPECT_THAT(found[0]->frac_coords, ElementsAre(0, 0, 0, 0.5, 0.5, 0.5));
  EXPECT_THAT(found[0]->lattice, Pointwise(DoubleNear(1e-12), Lattice{4, 0, 0, 0, 4, 0, 0, 0, 4}));
}

TEST(CifReader, SpaceGroup_IsFoundByNameHallOrNumber) {
  for (const char* symmetry : {"_symmetry_space_group_name_H-M 'I m -3 m'\n", "_space_group_name_H-M_alt 'Im-3m'\n",
                               "_space_group_name_Hall '-I 4 2 3'\n", "_space_group_IT_number 229\n",
                               "_symmetry_space_group_name_H-M ?\n_symmetry_Int_Tables_number 229\n"}) {
    const Found found = Cif(Iron(symmetry));
    ASSERT_OK(found[0]) << symmetry;
    EXPECT_EQ(found[0]->atoms(), 2) << symmetry;
  }
  EXPECT_EQ(Cif(Iron(""))[0]->atoms(), 1);
  EXPECT_THAT(Cif(Iron("_symmetry_space_group_name_H-M 'Q 9'\n"))[0],
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("unknown space group: 'Q 9'")));
}

TEST(CifReader, SpecialPosition_IsOneAtomThoughItsDigitsAreFew) {
  const std::string sites = absl::StrCat(kFractions, "Mg1 Mg2+ 0.3333 0.6667 0.25\n");
  std::string hexagonal = Block("_symmetry_space_group_name_H-M 'P 63/m m c'\n", sites);
  hexagonal = absl::StrReplaceAll(hexagonal, {{"gamma 90", "gamma 120"}});
  const Found found = Cif(hexagonal);
  ASSERT_OK(found[0]);
  EXPECT_THAT(found[0]->atomic_numbers, ElementsAre(12, 12));
}

TEST(CifReader, SitesThatAreImagesOfEachOther_AreOneAtom) {
  const Found found = Cif(Block(kCentred, absl::StrCat(kFractions, "Fe1 Fe 0 0 0\nFe2 Fe 0.5 0.5 0.5\n")));
  ASSERT_OK(found[0]);
  EXPECT_EQ(found[0]->atoms(), 2);
  EXPECT_THAT(Cif(Block(kCentred, absl::StrCat(kFractions, "Fe1 Fe 0 0 0\nCo1 Co 0.5 0.5 0.5\n")))[0],
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("atoms on the same spot")));
}

TEST(CifReader, CartesianSites_AreAngstromsAndNeverTheOrigin) {
  const std::string sites = "_atom_site_Cartn_x\n_atom_site_Cartn_y\n_atom_site_Cartn_z\nFe1 Fe 1 2 3\n";
  const Found found = Cif(Block(kCentred, sites));
  ASSERT_OK(found[0]);
  EXPECT_THAT(found[0]->frac_coords, Pointwise(DoubleNear(1e-12), std::vector<double>{0.25, 0.5, 0.75, 0.75, 0, 0.25}));
  EXPECT_THAT(Cif(Block("_atom_sites_Cartn_tran_matrix_11 0.5\n", sites))[0],
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("axes of their own")));
}

TEST(CifReader, Blocks_AreStructuresNamedByTheirBlock) {
  const Found found = Cif(absl::StrCat("data_global\n_journal_year 2020\n", Iron(""),
                                       Block(kCentred, absl::StrCat(kFractions, "C1 C 0 0 0\n"), "two")));
  ASSERT_THAT(found, SizeIs(2));
  EXPECT_EQ(found[0]->id, "one");
  EXPECT_EQ(found[1]->id, "two");
  EXPECT_EQ(found[1]->atoms(), 2);
  EXPECT_EQ(Cif(Iron(""))[0]->id, "");
}

TEST(CifReader, AWrongBlock_DoesNotHideTheNext) {
  const Found found = Cif(absl::StrCat(Block("", absl::StrCat(kFractions, "X1 Xx 0 0 0\n")), Iron(""), "\n"));
  // Two blocks of one name are not CIF.
  ASSERT_THAT(found, SizeIs(1));
  const Found named = Cif(absl::StrCat(Block("", absl::StrCat(kFractions, "X1 Xx 0 0 0\n"), "zero"), Iron("")));
  ASSERT_THAT(named, SizeIs(2));
  EXPECT_THAT(named[0], StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("a.cif:2: unknown element: 'Xx'")));
  EXPECT_OK(named[1]);
}

TEST(CifReader, Element_IsToldByTypeSymbolOrLabel) {
  const auto element = [](const std::string& label, const std::string& type) -> absl::StatusOr<int> {
    std::string text = Block("", absl::StrCat(kFractions, label, type.empty() ? "" : " ", type, " 0 0 0\n"));
    if (type.empty()) text = absl::StrReplaceAll(text, {{"_atom_site_type_symbol\n", ""}});
    const Found found = Cif(text);
    if (!found[0].ok()) return found[0].status();
    return found[0]->atomic_numbers[0];
  };
  EXPECT_EQ(*element("whatever", "Fe3+"), 26);
  EXPECT_EQ(*element("whatever", "CL"), 17);
  EXPECT_EQ(*element("whatever", "O2-"), 8);
  EXPECT_EQ(*element("whatever", "D"), 1);
  EXPECT_EQ(*element("Ba1", ""), 56);
  EXPECT_EQ(*element("O1W", ""), 8);
  EXPECT_EQ(*element("OW1", ""), 8);
  EXPECT_THAT(element("CA1", ""), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("ambiguous element: 'CA1'")));
  EXPECT_THAT(element("Fe1", "Wat"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("unknown element: 'Wat'")));
  EXPECT_THAT(element("Fe1", "?"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("unknown element")));
}

TEST(CifReader, WhatIsWrong_IsNamed) {
  const std::string good = Block(kCentred, absl::StrCat(kFractions, "_atom_site_occupancy\nFe1 Fe 0 0 0 1\n"));
  EXPECT_OK(Cif(good)[0]);
  const struct {
    const char *from, *to, *message;
  } cases[] = {
      {"0 0 0 1\n", "0 0 0 0.5\n", "fractional occupancy: '0.5' of site 1"},
      {"0 0 0 1\n", "0 0 0 0\n", "fractional occupancy: '0' of site 1"},
      {"0 0 0 1\n", "0 0 ? 1\n", "coordinate out of range: '?' of site 1"},
      {"0 0 0 1\n", "0 0 zero 1\n", "coordinate out of range: 'zero' of site 1"},
      {"0 0 0 1\n", "0 0 0\n", "not CIF"},
      {"_cell_length_a 4.0(1)\n", "", "wrong cell: _cell_length_a is missing"},
      {"length_b 4", "length_b -4", "wrong cell: _cell_length_b is '-4'"},
      {"length_b 4", "length_b four", "wrong cell: _cell_length_b is 'four'"},
      {"gamma 90", "gamma 180", "wrong cell: _cell_angle_gamma is '180'"},
      {"gamma 90", "gamma 0.001", "singular lattice"},
      {"alpha 90", "alpha 0.5", "singular lattice"},
      {"x+1/2, y+1/2", "x+99999999999/2, y", "wrong symmetry: 'x+99999999999/2"},
      {"x+1/2, y+1/2", "x+1/7, y+1/2", "malformed block"},
      {"x+1/2, y+1/2,", "x+1/2", "wrong symmetry"},
      {"_atom_site_fract_z\n", "_atom_site_other\n", "wrong counts: each atom site needs"},
  };
  for (const auto& broken : cases) {
    SCOPED_TRACE(broken.message);
    const Found found = Cif(absl::StrReplaceAll(good, {{broken.from, broken.to}}));
    ASSERT_FALSE(found.empty());
    EXPECT_THAT(found[0], StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(broken.message)));
  }
}

TEST(CifReader, WhatIsNoCif_IsNamedWithItsLine) {
  const struct {
    std::string text, message;
  } cases[] = {
      {"hello\n", "a.cif:1: not CIF"},
      {"data_one\n_cell_length_a 4\nstray\n", "a.cif:3: not CIF"},
      {std::string("\0\1\2", 3), "a.cif:1: not CIF"},
      {"data_one\n_cell_length_a 4\n", "a.cif: no atom sites"},
      {"", "a.cif: no atom sites"},
  };
  for (const auto& broken : cases) {
    SCOPED_TRACE(broken.message);
    const Found found = Cif(broken.text);
    ASSERT_THAT(found, SizeIs(1));
    EXPECT_THAT(found[0], StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(broken.message)));
  }
}

}  // namespace
}  // namespace stoker::ingest
