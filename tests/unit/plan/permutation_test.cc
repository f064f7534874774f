// SPDX-License-Identifier: Apache-2.0
#include "server/plan/permutation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace stoker::plan {
namespace {

using ::testing::ElementsAre;

std::vector<uint64_t> Order(uint64_t size, uint64_t seed, uint64_t epoch) {
  const Permutation permutation(size, seed, epoch);
  std::vector<uint64_t> order(size);
  for (uint64_t i = 0; i < size; ++i) order[i] = permutation(i);
  return order;
}

bool IsBijection(const std::vector<uint64_t>& order) {
  std::vector<bool> seen(order.size(), false);
  for (const uint64_t value : order) {
    if (value >= seen.size() || seen[value]) return false;
    seen[value] = true;
  }
  return true;
}

TEST(Permutation, AnySizeSeedAndEpoch_IsABijection) {
  for (uint64_t size = 1; size <= 200; ++size) {
    for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{42}, UINT64_MAX}) {
      for (const uint64_t epoch : {0, 1, 7}) EXPECT_TRUE(IsBijection(Order(size, seed, epoch))) << size;
    }
  }
}

TEST(Permutation, LargeSize_IsABijection) {
  for (const uint64_t size : {1023, 1024, 1025, 4096, 65535, 65536, 65537, 1000003}) {
    EXPECT_TRUE(IsBijection(Order(size, 5, 3))) << size;
  }
}

TEST(Permutation, SameKey_GivesTheSameOrder) { EXPECT_EQ(Order(1000, 3, 4), Order(1000, 3, 4)); }

// These numbers are the order that users' epochs have: who changes them changes every run that is resumed.
TEST(Permutation, KnownKeys_KeepTheirOrderForGood) {
  EXPECT_THAT(Order(10, 0, 0), ElementsAre(3, 7, 0, 8, 6, 9, 4, 1, 2, 5));
  EXPECT_THAT(Order(10, 42, 1), ElementsAre(7, 5, 0, 4, 2, 9, 3, 8, 6, 1));
  const Permutation large(uint64_t{1} << 40, 42, 1);
  EXPECT_EQ(large(0), 460828957820u);
  EXPECT_EQ(large((uint64_t{1} << 40) - 1), 193708479200u);
}

TEST(Permutation, Apply_GivesTheSameForManyAtOnce) {
  for (const uint64_t size : {uint64_t{1}, uint64_t{2}, uint64_t{63}, uint64_t{64}, uint64_t{65}, uint64_t{8192},
                              (uint64_t{1} << 40) + 1, (uint64_t{1} << 62) - 1}) {
    const Permutation permutation(size, 3, 9);
    std::vector<uint64_t> many, one;
    for (uint64_t i = 0; i < 300; ++i) {
      many.push_back((i * 0x9e3779b97f4a7c15) % size);
      one.push_back(permutation(many.back()));
    }
    permutation.Apply(absl::MakeSpan(many));
    EXPECT_EQ(many, one) << size;
  }
  Permutation(10, 0, 0).Apply({});
}

TEST(Permutation, OtherSeedOrEpoch_GivesAnotherOrder) {
  std::set<std::vector<uint64_t>> orders;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    for (uint64_t epoch = 0; epoch < 30; ++epoch) orders.insert(Order(50, seed, epoch));
  }
  EXPECT_EQ(orders.size(), 900u);
}

TEST(Permutation, LargestSize_IsEvaluatedInPlace) {
  for (const uint64_t size : {uint64_t{1} << 40, (uint64_t{1} << 40) + 1, (uint64_t{1} << 62) - 1}) {
    const Permutation permutation(size, 1, 2);
    std::set<uint64_t> values;
    for (uint64_t i = 0; i < 5000; ++i) {
      for (const uint64_t index : {i, size / 2 + i, size - 1 - i}) {
        const uint64_t value = permutation(index);
        ASSERT_LT(value, size);
        values.insert(value);
      }
    }
    EXPECT_EQ(values.size(), 15000u);
  }
}

// Sum of (count - expected)^2 / expected over all cells.
double ChiSquare(const std::vector<int>& counts, double expected) {
  double sum = 0;
  for (const int count : counts) sum += (count - expected) * (count - expected) / expected;
  return sum;
}

// Its mean is its degrees of freedom f, its deviation sqrt(2 f). Six deviations: keys here are fixed, so a good shuffle
// passes for good, and a broken one is far beyond.
double Threshold(double freedom) { return freedom + 6 * std::sqrt(2 * freedom); }

using MakeOrder = std::function<std::vector<uint64_t>(uint64_t size, uint64_t round)>;
const std::vector<std::pair<const char*, MakeOrder>> kRounds = {
    {"seeds", [](uint64_t size, uint64_t round) { return Order(size, round, 0); }},
    {"epochs", [](uint64_t size, uint64_t round) { return Order(size, 7, round); }}};

// How often each value comes to each position: fails if some positions prefer some values.
double PositionStatistic(const MakeOrder& make, uint64_t size, int rounds) {
  std::vector<int> counts(size * size, 0);
  for (int round = 0; round < rounds; ++round) {
    const std::vector<uint64_t> order = make(size, round);
    for (uint64_t i = 0; i < size; ++i) ++counts[i * size + order[i]];
  }
  return ChiSquare(counts, static_cast<double>(rounds) / static_cast<double>(size));
}

// How often each pair of values comes to two positions: fails if neighbours stay neighbours, as in a rotation.
double PairStatistic(const MakeOrder& make, uint64_t size, uint64_t a, uint64_t b, int rounds) {
  std::vector<int> counts(size * size, 0);
  for (int round = 0; round < rounds; ++round) {
    const std::vector<uint64_t> order = make(size, round);
    ++counts[order[a] * size + order[b]];
  }
  std::vector<int> pairs;
  for (uint64_t i = 0; i < counts.size(); ++i) {
    if (i / size != i % size) pairs.push_back(counts[i]);
  }
  return ChiSquare(pairs, static_cast<double>(rounds) / static_cast<double>(pairs.size()));
}

TEST(Permutation, ManyKeys_BringEveryValueToEveryPositionEquallyOften) {
  for (const auto& [name, make] : kRounds) {
    for (const uint64_t size : {5, 16, 17, 64, 100}) {
      const double freedom = static_cast<double>((size - 1) * (size - 1));
      EXPECT_LT(PositionStatistic(make, size, 20000), Threshold(freedom)) << size << " over " << name;
    }
  }
}

TEST(Permutation, ManyKeys_BringEveryPairOfValuesTogetherEquallyOften) {
  for (const auto& [name, make] : kRounds) {
    for (const uint64_t size : {16, 33}) {
      const double freedom = static_cast<double>(size * (size - 1) - 1);
      EXPECT_LT(PairStatistic(make, size, 0, 1, 40000), Threshold(freedom)) << size << " over " << name;
      EXPECT_LT(PairStatistic(make, size, 0, size - 1, 40000), Threshold(freedom)) << size << " over " << name;
    }
  }
}

// How often each of the orders that occur at all does.
std::vector<int> OrderCounts(const MakeOrder& make, uint64_t size, int rounds) {
  std::map<std::vector<uint64_t>, int> seen;
  for (int round = 0; round < rounds; ++round) ++seen[make(size, round)];
  std::vector<int> counts;
  for (const auto& entry : seen) counts.push_back(entry.second);
  return counts;
}

TEST(Permutation, ManyKeysOfAFewSamples_GiveEveryOrderEquallyOften) {
  for (const auto& [name, make] : kRounds) {
    for (const auto& [size, orders] : {std::pair{2, 2}, {3, 6}, {4, 24}}) {
      const std::vector<int> counts = OrderCounts(make, size, 24000);
      EXPECT_EQ(counts.size(), static_cast<size_t>(orders));
      EXPECT_LT(ChiSquare(counts, 24000.0 / orders), Threshold(orders - 1)) << size << " over " << name;
    }
  }
}

// From five samples on some orders are a little more frequent than others, by a tenth; that is no matter, but each must
// occur, and none be frequent.
TEST(Permutation, ManyKeysOfFiveSamples_GiveEveryOrderAboutAsOften) {
  for (const auto& [name, make] : kRounds) {
    const std::vector<int> counts = OrderCounts(make, 5, 24000);
    EXPECT_EQ(counts.size(), 120u) << name;
    EXPECT_LT(*std::max_element(counts.begin(), counts.end()), 300) << name;
    EXPECT_GT(*std::min_element(counts.begin(), counts.end()), 100) << name;
  }
}

// The tests above are worth something only if a poor shuffle fails them.
TEST(PermutationStatistics, PoorShuffles_AreFound) {
  const MakeOrder rotation = [](uint64_t size, uint64_t round) {
    std::vector<uint64_t> order(size);
    for (uint64_t i = 0; i < size; ++i) order[i] = (i + round) % size;
    return order;
  };
  const MakeOrder one_fixed = [](uint64_t size, uint64_t round) {
    std::vector<uint64_t> order = Order(size, round, 0);
    if (round % 20 == 0) std::swap(order[0], *std::find(order.begin(), order.end(), 0u));
    return order;
  };
  EXPECT_GT(PairStatistic(rotation, 16, 0, 1, 40000), Threshold(239));
  EXPECT_GT(PositionStatistic(one_fixed, 16, 20000), Threshold(225));
  EXPECT_GT(PositionStatistic(one_fixed, 100, 20000), Threshold(9801));
}

}  // namespace
}  // namespace stoker::plan
