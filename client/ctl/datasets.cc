// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "client/ctl/command.h"
#include "shared/base/size.h"

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
  return manifest.target() == v1::IngestOptions::TARGET_VALUE ? absl::StrCat(manifest.target_width(), " values") : "";
}

ExitCode RunDatasets(const Context& context) {
  const absl::StatusOr<Client> client = context.Connect();
  if (!client.ok()) return Fail(context.output, "datasets", client.status());
  const absl::StatusOr<std::vector<v1::DatasetInfo>> datasets = client->Datasets();
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
  } else if (!context.output.quiet) {
    context.output.err << "no data sets yet: make one with stokerctl ingest" << std::endl;
  }
  return kDone;
}

}  // namespace

void AddDatasets(CLI::App& app, Context& context) {
  CLI::App* command = AddCommand(app, "datasets", "The data sets that there are", "stokerctl datasets");
  command->callback([&context] { context.action = [&context] { return RunDatasets(context); }; });
}

}  // namespace stoker::ctl
