// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/extxyz_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/ingest/structures.h"

namespace stoker::ingest {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr char kLattice[] = "Lattice=\"4 0 0 0 4 0 0 0 4\"";

// One frame of two atoms with this comment.
Found Frame(const std::string& comment, const std::string& atoms = "Na 0 0 0\nCl 2 2 2\n",
            const RecordKeys& keys = {}) {
  return Extxyz(absl::StrCat("2\n", comment, "\n", atoms), keys);
}

TEST(ExtxyzReader, WithLattice_IsPeriodicCartesian) {
  const Found found = Frame(absl::StrCat(kLattice, " Properties=species:S:1:pos:R:3"));
  ASSERT_THAT(found, SizeIs(1));
  ASSERT_OK(found[0]);
  EXPECT_THAT(found[0]->atomic_numbers, ElementsAre(11, 17));
  EXPECT_TRUE(found[0]->cartesian);
  EXPECT_THAT(found[0]->coords, ElementsAre(0, 0, 0, 2, 2, 2));
  EXPECT_THAT(found[0]->frac_coords, ElementsAre(0, 0, 0, 0.5, 0.5, 0.5));
  EXPECT_THAT(found[0]->periodic, ElementsAre(true, true, true));
}

TEST(ExtxyzReader, WithoutLattice_IsAMolecule) {
  for (const char* comment : {"", "water, from somewhere", "Properties=species:S:1:pos:R:3 pbc=\"F F F\""}) {
    const Found found = Frame(comment);
    ASSERT_THAT(found, SizeIs(1));
    ASSERT_OK(found[0]);
    EXPECT_FALSE(found[0]->has_lattice());
    EXPECT_THAT(found[0]->periodic, ElementsAre(false, false, false));
    EXPECT_THAT(found[0]->frac_coords, ElementsAre(0, 0, 0, 2, 2, 2));
  }
}

TEST(ExtxyzReader, Pbc_SaysWhichAxesRepeat) {
  for (const char* pbc : {"pbc=\"T F 1\"", "pbc = \"True False T\"", "pbc=[T, F, T]", "pbc='t f t'"}) {
    const Found found = Frame(absl::StrCat(kLattice, " ", pbc));
    ASSERT_OK(found[0]) << pbc;
    EXPECT_THAT(found[0]->periodic, ElementsAre(true, false, true));
  }
}

TEST(ExtxyzReader, ColumnsInAnyOrder_AreFoundByProperties) {
  const Found found = Frame(absl::StrCat("Properties=id:I:1:pos:R:3:fixed:L:1:forces:R:3:species:S:1 ", kLattice),
                            "1 0 0 0 T 9 9 9 Na\n2 2 2 2 F 9 9 9 Cl more\n");
  ASSERT_OK(found[0]);
  EXPECT_THAT(found[0]->atomic_numbers, ElementsAre(11, 17));
  EXPECT_THAT(found[0]->coords, ElementsAre(0, 0, 0, 2, 2, 2));
  const Found by_number = Frame("Properties=Z:I:1:pos:R:3", "11 0 0 0\n17 2 2 2\n");
  ASSERT_OK(by_number[0]);
  EXPECT_THAT(by_number[0]->atomic_numbers, ElementsAre(11, 17));
}

TEST(ExtxyzReader, KeysOfTheComment_AreIdAndTargets) {
  const Found found = Frame("energy=-1.5 name=\"a b\" id=x7 done mass = 3e1 gap=na", "Na 0 0 0\nCl 2 2 2\n",
                            {.id = "name", .targets = {"mass", "energy", "gap"}});
  ASSERT_OK(found[0]);
  EXPECT_EQ(found[0]->id, "a b");
  EXPECT_EQ(found[0]->targets[0], 30);
  EXPECT_EQ(found[0]->targets[1], -1.5);
  EXPECT_TRUE(std::isnan(found[0]->targets[2]));
  EXPECT_EQ(Frame("id=x7")[0]->id, "x7");
}

TEST(ExtxyzReader, Frames_AreReadOneAfterAnother) {
  const std::string one = absl::StrCat("1\r\n", kLattice, "\r\nSi 0 0 0\r\n");
  std::vector<uint64_t> lines;
  EXPECT_OK(ReadExtxyz(absl::StrCat(one, one, "\n  \n", "1\n\nC 1 1 1"), "a.xyz", 11, {}, [&](uint64_t line, auto s) {
    lines.push_back(line);
    return s.status();
  }));
  EXPECT_THAT(lines, ElementsAre(11, 14, 19));
}

TEST(ExtxyzReader, AWrongFrame_DoesNotHideTheNext) {
  const Found found = Extxyz("1\n\nXx 0 0 0\n1\n\nC 0 0 0\n");
  ASSERT_THAT(found, SizeIs(2));
  EXPECT_THAT(found[0],
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("a.xyz:1: unknown element: 'Xx' of atom 1")));
  EXPECT_OK(found[1]);
}

TEST(ExtxyzReader, WhatIsWrongInAFrame_IsNamed) {
  const struct {
    std::string comment, atoms, message;
  } cases[] = {
      {"Lattice=\"1 2 3\"", "", "a.xyz:1: wrong lattice: 3 numbers"},
      {"Lattice=\"4 0 0 0 4 0 0 0 x\"", "", "not a number: 'x' of the lattice"},
      {"Lattice=\"4 0 0 0 4 0 4 4 0\"", "", "singular lattice"},
      {"Lattice=\"4 0 0 0 4 0 0 0 nan\"", "", "lattice out of range"},
      {"pbc=\"T T T\"", "", "no lattice: periodic"},
      {"pbc=\"T T\"", "", "wrong pbc"},
      {"pbc=\"T T maybe\"", "", "wrong pbc: 'maybe'"},
      {"Properties=species:S:1", "", "wrong Properties"},
      {"Properties=species:S:1:pos:R:3:x", "", "wrong Properties"},
      {"Properties=species:Q:1:pos:R:3", "", "wrong Properties"},
      {"Properties=species:S:1:pos:R:3:f:R:99999999999", "", "wrong Properties"},
      {"", "Na 0 0 0\nCl 2 2\n", "too few columns: atom 2 has 3 of 4"},
      {"", "Na 0 0 0\nCl 2 2 two\n", "not a number: 'two' of atom 2"},
      {"", "Na 0 0 0\nCl 2 2 nan\n", "coordinate out of range: nan of atom 2"},
      {"", "Na 0 0 0\nCl 0 0 0.0001\n", "atoms on the same spot: 1 (Na) and 2 (Cl)"},
      {kLattice, "Na 0 0 0\nCl 0 0 4\n", "atoms on the same spot: 1 (Na) and 2 (Cl)"},
      {"Properties=Z:I:1:pos:R:3", "0 0 0 0\n1 1 1 1\n", "unknown element: '0' of atom 1"},
      {"Properties=Z:I:1:pos:R:3", "119 0 0 0\n1 1 1 1\n", "unknown element: '119' of atom 1"},
  };
  for (const auto& broken : cases) {
    SCOPED_TRACE(broken.message);
    const Found found = Frame(broken.comment, broken.atoms.empty() ? "Na 0 0 0\nCl 2 2 2\n" : broken.atoms);
    ASSERT_THAT(found, SizeIs(1));
    EXPECT_THAT(found[0], StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(broken.message)));
  }
  EXPECT_THAT(Frame("energy=1", "Na 0 0 0\nCl 2 2 2\n", {.targets = {"gap"}})[0],
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("missing target: no key 'gap'")));
  EXPECT_THAT(Frame("gap=wide", "Na 0 0 0\nCl 2 2 2\n", {.targets = {"gap"}})[0],
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("wrong target: gap is 'wide'")));
  EXPECT_THAT(Frame("id=1", "Na 0 0 0\nCl 2 2 2\n", {.id = "name"})[0],
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("missing id: no key 'name'")));
}

TEST(ExtxyzReader, WhatCannotBeFollowed_EndsTheReading) {
  const struct {
    const char *text, *message;
  } cases[] = {
      {"three\n\nC 0 0 0\n", "a.xyz:1: not a number of atoms: 'three'"},
      {"-1\n\n", "a.xyz:1: not a number of atoms"},
      {"99999999999\n\nC 0 0 0\n", "a.xyz:1: wrong counts: 99999999999 atoms"},
      {"2\n\nC 0 0 0000000000000000\n", "a.xyz:3: cut off: a frame of 2 atoms ends early"},
      {"1\n", "a.xyz:1: cut off"},
      {"1\n\nC 0 0 0\nO 0 0 0\n", "a.xyz:4: not a number of atoms: 'O 0 0 0'"},
      {"0\n\n", "no atoms"},
  };
  for (const auto& broken : cases) {
    SCOPED_TRACE(broken.message);
    const Found found = Extxyz(broken.text);
    ASSERT_FALSE(found.empty());
    EXPECT_THAT(found.back(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(broken.message)));
  }
}

}  // namespace
}  // namespace stoker::ingest
