// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/structure.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "server/ingest/element.h"
#include "tests/support/status_matchers.h"

namespace stoker::ingest {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pointwise;

Structure Cell(Lattice lattice, std::vector<double> fractions) {
  Structure structure;
  structure.lattice = lattice;
  structure.periodic = {true, true, true};
  structure.atomic_numbers.assign(fractions.size() / 3, 14);
  structure.coords = std::move(fractions);
  return structure;
}

constexpr Lattice kCube = {4, 0, 0, 0, 4, 0, 0, 0, 4};
constexpr Lattice kSkew = {4, 0, 0, 3.9, 1, 0, -3.5, 0.5, 2};

absl::StatusOr<bool> IsClose(Structure structure) {
  bool close = false;
  if (absl::Status status = CompleteStructure("s", &structure); !status.ok()) return status;
  if (absl::Status status = CheckAtoms("s", structure, &close); !status.ok()) return status;
  return close;
}

TEST(Elements, AllHaveASymbolOfTheirOwn) {
  for (uint8_t z = 1; z <= kMaxAtomicNumber; ++z) EXPECT_EQ(AtomicNumber(ElementSymbol(z)), z);
  EXPECT_EQ(AtomicNumber("U"), 92);
  EXPECT_EQ(AtomicNumber("Og"), 118);
  EXPECT_EQ(AtomicNumber("D"), 1);
  for (const char* none : {"", "X", "h", "HE", "Hee"}) EXPECT_EQ(AtomicNumber(none), 0) << none;
}

TEST(Structure, InverseTakesCartesianToFractions) {
  Structure structure = Cell(kSkew, {1, 2, 3, -1, 0.5, 7});
  structure.cartesian = true;
  ASSERT_OK(CompleteStructure("s", &structure));
  for (size_t atom = 0; atom < 2; ++atom) {
    const std::array<double, 3> back = Transform(&structure.frac_coords[3 * atom], structure.lattice);
    for (size_t k = 0; k < 3; ++k) EXPECT_NEAR(back[k], structure.coords[3 * atom + k], 1e-12);
  }
  EXPECT_THAT(LatticeHeights(kCube), ElementsAre(4, 4, 4));
}

TEST(Structure, WhatIsOutOfRange_IsNamed) {
  const auto complete = [](Structure structure) { return CompleteStructure("a.json: record 3", &structure); };
  EXPECT_OK(complete(Cell(kCube, {0, 0, 0})));
  EXPECT_OK(complete(Cell({-400, 0, 0, 0, 400, 0, 0, 0, 400}, {0, 0, 0})));  // left-handed, huge, one atom
  EXPECT_THAT(complete(Cell(kCube, {})),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("reading a.json: record 3: no atoms")));
  EXPECT_THAT(complete(Cell(kCube, {0, NAN, 0})),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("coordinate out of range: nan of atom 1")));
  EXPECT_THAT(complete(Cell({}, {0, 0, 0})),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no lattice: periodic")));
  EXPECT_THAT(complete(Cell({4, 0, 0, 0, INFINITY, 0, 0, 0, 4}, {0, 0, 0})),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("lattice out of range")));
  for (const Lattice& flat : {Lattice{4, 0, 0, 4, 0, 0, 0, 0, 4}, Lattice{4, 0, 0, 0, 4, 0, 1, 1, 1e-9},
                              Lattice{4, 0, 0, 0, 4, 0, 0, 0, 0}}) {
    EXPECT_THAT(complete(Cell(flat, {0, 0, 0})),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("singular lattice")));
  }
}

TEST(Structure, AtomsOnOneSpot_AreRefusedAcrossFacesToo) {
  for (const Lattice& lattice : {kCube, kSkew}) {
    EXPECT_THAT(IsClose(Cell(lattice, {0.2, 0.2, 0.2, 0.7, 0.7, 0.7, 1.2, -0.8, 5.2 + 1e-4})),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("atoms on the same spot: 1 (Si) and 3 (Si)")));
    EXPECT_THAT(IsClose(Cell(lattice, {0.2, 0.2, 1e-5, 0.2, 0.2, 1 - 1e-5})),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("atoms on the same spot")));
  }
  Structure molecule = Cell({}, {0, 0, 0, 4, 0, 0});
  molecule.periodic = {};
  EXPECT_OK(IsClose(molecule));  // where there are no images
  molecule.coords[3] = 5e-4;
  EXPECT_THAT(IsClose(molecule), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("are 0.0005 Å apart")));
}

TEST(Structure, CloseAtoms_AreToldAndKept) {
  using ::stoker::testing::IsOkAndHolds;
  EXPECT_THAT(IsClose(Cell(kCube, {0, 0, 0, 0.12, 0, 0})), IsOkAndHolds(true));              // 0.48 Å
  EXPECT_THAT(IsClose(Cell(kCube, {0, 0, 0, 0.13, 0, 0})), IsOkAndHolds(false));             // 0.52 Å
  EXPECT_THAT(IsClose(Cell(kCube, {0, 0, 0, 0.88, 1, -3})), IsOkAndHolds(true));             // through the face
  EXPECT_THAT(IsClose(Cell(kCube, {0, 0, 0, 0.002, 0, 0})), IsOkAndHolds(true));             // 0.008 Å is no spot
  EXPECT_THAT(IsClose(Cell({0.4, 0, 0, 0, 4, 0, 0, 0, 4}, {0, 0, 0})), IsOkAndHolds(true));  // its own image
  Structure slab = Cell({0.4, 0, 0, 0, 4, 0, 0, 0, 4}, {0, 0, 0});
  slab.periodic = {false, true, true};
  EXPECT_THAT(IsClose(slab), IsOkAndHolds(false));
}

// The search by cubes against all pairs of all images.
TEST(Structure, CloseAtoms_AreThoseOfAllPairs) {
  std::mt19937 random(5);
  std::uniform_real_distribution<double> uniform(-1.5, 1.5);
  int close_ones = 0;
  for (int round = 0; round < 300; ++round) {
    Lattice lattice;
    for (double& value : lattice) value = 2 * uniform(random);
    if (LatticeHeights(lattice)[0] < 0.2 || LatticeHeights(lattice)[1] < 0.2 || LatticeHeights(lattice)[2] < 0.2)
      continue;
    std::vector<double> fractions(9);
    for (double& value : fractions) value = uniform(random);
    const Structure structure = Cell(lattice, fractions);
    bool expected = false;
    for (int image = 0; image < 31 * 31 * 31; ++image) {
      const int shift[3] = {image / 961 - 15, image / 31 % 31 - 15, image % 31 - 15};
      for (size_t i = 0; i < 3; ++i) {
        for (size_t j = 0; j < 3; ++j) {
          double d[3];
          for (size_t k = 0; k < 3; ++k) d[k] = fractions[3 * i + k] - fractions[3 * j + k] + shift[k];
          const std::array<double, 3> r = Transform(d, lattice);
          const bool self = i == j && shift[0] == 0 && shift[1] == 0 && shift[2] == 0;
          expected = expected || (!self && std::hypot(r[0], r[1], r[2]) < kCloseAtoms);
        }
      }
    }
    close_ones += expected ? 1 : 0;
    EXPECT_THAT(IsClose(structure), ::stoker::testing::IsOkAndHolds(expected)) << round;
  }
  EXPECT_GT(close_ones, 10);
}

TEST(Structure, TenThousandAtoms_AreChecked) {
  std::vector<double> fractions;
  for (int i = 0; i < 10648; ++i) {
    for (const int k : {i / 484, i / 22 % 22, i % 22}) fractions.push_back(k / 22.);
  }
  EXPECT_THAT(IsClose(Cell({60, 0, 0, 0, 60, 0, 0, 0, 60}, fractions)), ::stoker::testing::IsOkAndHolds(false));
}

TEST(Primitive, ConventionalCell_BecomesThePrimitiveOne) {
  Structure silicon = Cell({5.43, 0, 0, 0, 5.43, 0, 0, 0, 5.43},
                           {0,    0,    0,    0.5,  0.5,  0,    0.5,  0,    0.5,  0,    0.5,  0.5,
                            0.25, 0.25, 0.25, 0.75, 0.75, 0.25, 0.75, 0.25, 0.75, 0.25, 0.75, 0.75});
  silicon.id = "Si";
  ASSERT_OK(CompleteStructure("s", &silicon));
  ASSERT_OK(ReducePrimitive("s", &silicon));
  EXPECT_EQ(silicon.atoms(), 2);
  EXPECT_EQ(silicon.frac_coords.size(), 6);
  EXPECT_EQ(silicon.id, "Si");
  EXPECT_NEAR(std::abs(Determinant(silicon.lattice)), std::pow(5.43, 3) / 4, 1e-6);
  Structure slab = Cell(kCube, {0, 0, 0});
  slab.periodic = {true, true, false};
  ASSERT_OK(CompleteStructure("s", &slab));
  EXPECT_THAT(ReducePrimitive("s", &slab),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no primitive cell")));
}

}  // namespace
}  // namespace stoker::ingest
