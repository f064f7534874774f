// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "client/ctl/command.h"
#include "client/ctl/distribution_plot.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"

namespace stoker::ctl {
namespace {

std::string KindName(v1::DataKind kind) {
  return absl::AsciiStrToLower(absl::StrReplaceAll(v1::DataKind_Name(kind), {{"_", " "}}));
}

std::string Lengths(const v1::TimeSeriesInfo& info) {
  return info.length_min() == info.length_max() ? absl::StrCat(info.length_min())
                                                : absl::StrCat(info.length_min(), "-", info.length_max());
}

// Of crystals the medians.
std::string ASample(const v1::StoreManifest& manifest) {
  if (manifest.kind() != v1::CRYSTALS) {
    const v1::TimeSeriesInfo& series = manifest.time_series();
    return absl::StrCat(series.channels_size(), " x ", Lengths(series));
  }
  const v1::CrystalInfo& crystals = manifest.crystals();
  return absl::StrFormat("%g atoms, %g edges, %g triplets", crystals.atoms_each().median(),
                         crystals.edges_each().median(), crystals.triplets_each().median());
}

std::string Targets(const v1::StoreManifest& manifest) {
  if (manifest.classes_size() > 0) return absl::StrCat(manifest.classes_size(), " classes");
  if (manifest.target() != v1::IngestOptions::TARGET_VALUE) return "";
  return absl::StrCat(manifest.target_width(), manifest.target_width() == 1 ? " value" : " values");
}

// One number a sample of several data sets, side by side: figures, a plot on one axis, and how many samples of each
// cost as much as 64 of the first.
void Compare(absl::string_view what, const std::vector<const v1::DatasetInfo*>& datasets,
             const v1::Distribution& (v1::CrystalInfo::*each)() const, std::ostream& out) {
  constexpr int kPlotColumns = 40;
  constexpr double kBatch = 64;
  const auto of = [each](const v1::DatasetInfo* dataset) { return (dataset->manifest().crystals().*each)(); };
  double low = of(datasets[0]).min(), high = of(datasets[0]).max();
  for (const v1::DatasetInfo* dataset : datasets) {
    low = std::min(low, of(dataset).min());
    high = std::max(high, of(dataset).max());
  }
  Table table({absl::StrCat(what, " a sample"), "mean", "std", "min", "25 %", "median", "75 %", "95 %", "99 %", "max",
               "like 64", absl::StrFormat("%g to %g", low, high)});
  const auto number = [](double value) {
    return value < 1000 ? absl::StrFormat("%.4g", value) : FormatCount(static_cast<uint64_t>(std::round(value)));
  };
  for (const v1::DatasetInfo* dataset : datasets) {
    const v1::Distribution d = of(dataset);
    const double same = d.mean() > 0 ? std::round(kBatch * of(datasets[0]).mean() / d.mean()) : 0;
    table.Add({dataset->name(), number(d.mean()), number(d.std()), number(d.min()), number(d.p25()), number(d.median()),
               number(d.p75()), number(d.p95()), number(d.p99()), number(d.max()), absl::StrFormat("%.0f", same),
               PlotDistribution(d, low, high, kPlotColumns)});
  }
  out << "\n";
  table.Print(out);
}

void CompareCrystals(const std::vector<v1::DatasetInfo>& datasets, std::ostream& out) {
  std::vector<const v1::DatasetInfo*> crystals;
  for (const v1::DatasetInfo& dataset : datasets) {
    if (dataset.kind() == v1::CRYSTALS) crystals.push_back(&dataset);
  }
  if (crystals.empty()) return;
  Compare("atoms", crystals, &v1::CrystalInfo::atoms_each, out);
  Compare("edges", crystals, &v1::CrystalInfo::edges_each, out);
  Compare("triplets", crystals, &v1::CrystalInfo::triplets_each, out);
}

// Those of the names, in their order; all without names.
absl::StatusOr<std::vector<v1::DatasetInfo>> Find(const Client& client, const std::vector<std::string>& names) {
  if (names.empty()) return client.Datasets();
  std::vector<v1::DatasetInfo> datasets;
  for (const std::string& name : names) {
    STOKER_ASSIGN_OR_RETURN(std::vector<v1::DatasetInfo> found, client.Datasets(name));
    datasets.insert(datasets.end(), found.begin(), found.end());
  }
  return datasets;
}

ExitCode RunDatasets(const Context& context, const std::vector<std::string>& names) {
  const absl::StatusOr<Client> client = context.Connect();
  if (!client.ok()) return Fail(context.output, "datasets", client.status());
  const absl::StatusOr<std::vector<v1::DatasetInfo>> datasets = Find(*client, names);
  if (!datasets.ok()) return Fail(context.output, "datasets", datasets.status());
  if (context.output.json) {
    v1::ListDatasetsReply reply;
    for (const v1::DatasetInfo& dataset : *datasets) *reply.add_datasets() = dataset;
    PrintJson(context.output, reply);
    return kDone;
  }
  Table table({"name", "kind", "samples", "a sample", "targets", "size", "ingested"});
  for (const v1::DatasetInfo& dataset : *datasets) {
    table.Add({dataset.name(), KindName(dataset.kind()), FormatCount(dataset.samples()), ASample(dataset.manifest()),
               Targets(dataset.manifest()), FormatSize(dataset.bytes()),
               absl::FormatTime("%Y-%m-%d %H:%M", absl::FromUnixSeconds(dataset.ingested_unix_seconds()),
                                absl::LocalTimeZone())});
  }
  if (!table.empty()) {
    table.Print(context.output.out);
    if (!names.empty()) CompareCrystals(*datasets, context.output.out);
  } else if (!context.output.quiet) {
    context.output.err << "no data sets yet: make one with stokerctl ingest" << std::endl;
  }
  return kDone;
}

}  // namespace

void AddDatasets(CLI::App& app, Context& context) {
  CLI::App* command =
      AddCommand(app, "datasets", "The data sets that there are; those named, with what a sample costs, side by side",
                 "stokerctl datasets dft_3d megnet");
  auto names = std::make_shared<std::vector<std::string>>();
  command->add_option("name", *names, "Data sets to compare (default: all, without figures of their samples)");
  command->callback([&context, names] { context.action = [&context, names] { return RunDatasets(context, *names); }; });
}

}  // namespace stoker::ctl
