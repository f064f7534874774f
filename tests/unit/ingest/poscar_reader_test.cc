// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/poscar_reader.h"

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
using ::testing::DoubleEq;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pointwise;

constexpr char kSalt[] = "salt\n1.0\n4 0 0\n0 4 0\n0 0 4\nNa Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n";

TEST(PoscarReader, Direct_IsReadAsItStands) {
  ASSERT_OK_AND_ASSIGN(const Structure salt, Poscar(kSalt));
  EXPECT_THAT(salt.atomic_numbers, ElementsAre(11, 17));
  EXPECT_THAT(salt.frac_coords, ElementsAre(0, 0, 0, 0.5, 0.5, 0.5));
  EXPECT_THAT(salt.lattice, ElementsAre(4, 0, 0, 0, 4, 0, 0, 0, 4));
  EXPECT_THAT(salt.periodic, ElementsAre(true, true, true));
  EXPECT_FALSE(salt.cartesian);
}

TEST(PoscarReader, SpellingsThatVaspTakes_GiveTheSame) {
  ASSERT_OK_AND_ASSIGN(const Structure salt, Poscar(kSalt));
  const std::string text = kSalt;
  const std::string variants[] = {
      absl::StrReplaceAll(text, {{"\n", "\r\n"}}),
      absl::StrCat("\xEF\xBB\xBF", text),
      text.substr(0, text.size() - 1),  // no end of the last line
      absl::StrReplaceAll(
          text, {{"Direct", "selective dynamics\ndirect"}, {"0 0 0\n0.5 0.5 0.5", "0 0 0 T T F\n0.5 0.5 0.5 F F F"}}),
      absl::StrReplaceAll(text, {{"0.5 0.5 0.5", "0.5 0.5 0.5 Cl trailing # words"}}),
      absl::StrReplaceAll(text, {{"Na Cl", "Na_pv Cl/1a2b3c"}}),
      absl::StrReplaceAll(text, {{"Na Cl", "Na Cl ! elements"}, {"1 1\n", "1 1 ! counts\n"}}),
      absl::StrCat(text, "\n  0.1 0.1 0.1\n 0.2 0.2 0.2\n"),        // velocities
      absl::StrReplaceAll(text, {{"1.0\n", "2.0\n"}, {"4", "2"}}),  // scaled lattice
      absl::StrReplaceAll(text, {{"1.0\n", "-64\n"}, {"4", "3"}}),  // scaled to the volume
      absl::StrReplaceAll(text, {{"1.0\n", "1 2 4\n"}, {"4 0 0\n0 4 0\n0 0 4", "4 0 0\n0 2 0\n0 0 1"}}),
      absl::StrReplaceAll(text, {{"Direct", "Cartesian"}, {"0.5 0.5 0.5", "2 2 2"}}),
      absl::StrReplaceAll(text, {{"Direct", "k"}, {"0.5 0.5 0.5", "2 2 2"}}),
      // VASP multiplies Cartesian coordinates by the scale too.
      absl::StrReplaceAll(text, {{"1.0\n", "2.0\n"}, {"4", "2"}, {"Direct", "Cart"}, {"0.5 0.5 0.5", "1 1 1"}}),
      absl::StrReplaceAll(text, {{"1.0\n", "-64\n"}, {"4", "2"}, {"Direct", "Cart"}, {"0.5 0.5 0.5", "1 1 1"}}),
  };
  for (const std::string& variant : variants) {
    SCOPED_TRACE(variant);
    ASSERT_OK_AND_ASSIGN(const Structure same, Poscar(variant));
    EXPECT_EQ(same.atomic_numbers, salt.atomic_numbers);
    EXPECT_THAT(same.lattice, Pointwise(DoubleNear(1e-12), salt.lattice));
    EXPECT_THAT(same.frac_coords, Pointwise(DoubleNear(1e-12), salt.frac_coords));
  }
}

TEST(PoscarReader, LeftHandedLattice_IsAsGoodAsAny) {
  ASSERT_OK_AND_ASSIGN(const Structure salt, Poscar("left\n1\n0 4 0\n4 0 0\n0 0 4\nNa\n1\nCartesian\n1 2 3\n"));
  EXPECT_LT(Determinant(salt.lattice), 0);
  EXPECT_THAT(salt.frac_coords, ElementsAre(DoubleEq(0.5), DoubleEq(0.25), DoubleEq(0.75)));
}

struct Broken {
  const char* from;
  const char* to;
  const char* message;
};

TEST(PoscarReader, WhatIsWrong_IsNamedWithItsLine) {
  const Broken cases[] = {
      {"Na Cl\n", "", "POSCAR:6: no element symbols: a POSCAR of VASP 4"},
      {"Na Cl", "Na Xx", "POSCAR:6: unknown element: 'Xx'"},
      {"Na Cl", "NA CL", "POSCAR:6: unknown element: 'NA'"},
      {"1 1\n", "1\n", "POSCAR:7: wrong counts: 2 elements"},
      {"1 1\n", "1 1 1\n", "POSCAR:7: wrong counts: more numbers"},
      {"1 1\n", "1 -1\n", "POSCAR:7: wrong counts"},
      {"1 1\n", "1 4000000000\n", "POSCAR:7: wrong counts: more than the"},
      {"1 1\n", "1 18446744073709551615\n", "POSCAR:7: wrong counts"},
      {"1 1\n", "1 2\n", "POSCAR:10: cut off: the file ends before atom 3 of 3"},
      {"1 1\n", "0 0\n", "no atoms"},
      {"Direct", "selective\nupside down", "POSCAR:9: neither Direct nor Cartesian"},
      {"Direct", "upside down", "POSCAR:8: neither Direct nor Cartesian"},
      {"1.0\n", "one\n", "POSCAR:2: not a number: the scale"},
      {"1.0\n", "0\n", "POSCAR:2: wrong scale"},
      {"1.0\n", "nan\n", "POSCAR:2: wrong scale"},
      {"1.0\n", "1 -1 1\n", "POSCAR:2: wrong scale"},
      {"0 4 0", "0 4", "POSCAR:4: not three numbers: a lattice vector has 2"},
      {"0 4 0", "0 4 z", "POSCAR:4: not a number: 'z' of a lattice vector"},
      {"0 4 0", "8 0 0", "singular lattice"},
      {"0 4 0", "0 inf 0", "lattice out of range"},
      {"0.5 0.5 0.5", "0.5 0.5", "POSCAR:10: not three numbers: atom 2 of 2 has 2"},
      {"0.5 0.5 0.5", "0.5 x 0.5", "POSCAR:10: not a number: 'x' of atom 2 of 2"},
      {"0.5 0.5 0.5", "0.5 nan 0.5", "coordinate out of range: nan of atom 2"},
      {"0.5 0.5 0.5", "0.5 1e9 0.5", "coordinate out of range: 1e+09 of atom 2"},
      {"0.5 0.5 0.5", "1 -2 0.00001", "atoms on the same spot: 1 (Na) and 2 (Cl)"},
  };
  for (const Broken& broken : cases) {
    SCOPED_TRACE(broken.message);
    EXPECT_THAT(Poscar(absl::StrReplaceAll(kSalt, {{broken.from, broken.to}})),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(broken.message)));
  }
}

TEST(PoscarReader, CutAnywhere_IsAnError) {
  const std::string text = kSalt;
  for (size_t size = 0; size + 6 < text.size(); ++size) {
    EXPECT_THAT(Poscar(text.substr(0, size)), StatusIs(absl::StatusCode::kInvalidArgument)) << size;
  }
}

TEST(PoscarReader, Binary_IsAnError) {
  EXPECT_THAT(Poscar(std::string("\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 16)), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace stoker::ingest
