// SPDX-License-Identifier: Apache-2.0
// Google Benchmark over plans by budget, one thread: an epoch of samples packed into batches, by number of samples and
// which budgets bind. Beside it: the order alone (epoch_order), which a plan by number pays too.
//
//   packing_bench --benchmark_filter='pack/.*/1000000'
#include <benchmark/benchmark.h>

#include <cstdint>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/plan/packing.h"
#include "tests/unit/plan/costs.h"

namespace stoker::plan {
namespace {

const Graphs& Data(uint64_t samples) {
  static auto* const made = new std::map<uint64_t, Graphs>;
  return made->try_emplace(samples, Crystals(samples, 1)).first->second;
}

void BM_EpochOrder(benchmark::State& state, uint64_t samples) {
  const EpochOrder order(samples, BudgetedPlan(64, 0, 0, 0), 0);
  for (auto _ : state) {
    for (uint64_t i = 0; i < samples; ++i) benchmark::DoNotOptimize(order(i));
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * samples));
}

// As a plan by number asks: a batch at a time.
void BM_EpochOrderInBatches(benchmark::State& state, uint64_t samples) {
  constexpr uint64_t kBatch = 64;
  const EpochOrder order(samples, BudgetedPlan(64, 0, 0, 0), 0);
  std::vector<uint64_t> batch(kBatch);
  for (auto _ : state) {
    for (uint64_t first = 0; first + kBatch <= samples; first += kBatch) {
      std::iota(batch.begin(), batch.end(), first);
      order.Apply(absl::MakeSpan(batch));
      benchmark::DoNotOptimize(batch.data());
    }
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * samples));
}

void BM_Pack(benchmark::State& state, v1::Plan plan, uint64_t samples) {
  plan.set_oversize(v1::OVERSIZE_SKIP);
  const absl::StatusOr<Packer> packer = Packer::Create(plan, Data(samples).table());
  if (!packer.ok()) {
    state.SkipWithError(std::string(packer.status().message()).c_str());
    return;
  }
  uint64_t epoch = 0, batches = 0, bytes = 0;
  for (auto _ : state) {
    const PackedEpoch packed = *packer->Pack(epoch++);
    batches = packed.steps() * plan.world();
    bytes = packed.bytes();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * samples));
  state.counters["samples_a_batch"] = static_cast<double>(samples) / static_cast<double>(batches);
  state.counters["bytes_a_sample"] = static_cast<double>(bytes) / static_cast<double>(samples);
}

void Register() {
  // Crystals() has about 4.9 nodes, 79 edges and 1300 triplets a sample.
  const std::pair<const char*, v1::Plan> plans[] = {{"graphs", BudgetedPlan(64, 0, 0, 0)},
                                                    {"edges", BudgetedPlan(0, 0, 5000, 0)},
                                                    {"edges_small", BudgetedPlan(0, 0, 1250, 0)},
                                                    {"all", BudgetedPlan(64, 310, 5000, 83000)},
                                                    {"all_world8", BudgetedPlan(64, 310, 5000, 83000, 8)}};
  for (const uint64_t samples : {100000, 1000000, 10000000}) {
    benchmark::RegisterBenchmark(absl::StrCat("epoch_order/", samples).c_str(), BM_EpochOrder, samples);
    benchmark::RegisterBenchmark(absl::StrCat("epoch_order_in_batches/", samples).c_str(), BM_EpochOrderInBatches,
                                 samples);
    for (const auto& [name, plan] : plans) {
      benchmark::RegisterBenchmark(absl::StrCat("pack/", name, "/", samples).c_str(), BM_Pack, plan, samples)
          ->Unit(benchmark::kMillisecond);
    }
  }
}

}  // namespace
}  // namespace stoker::plan

int main(int argc, char** argv) {
  stoker::plan::Register();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
