// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
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
  Table table({"name", "kind", "samples", "channels", "length", "classes", "size", "ingested"});
  for (const v1::DatasetInfo& dataset : *datasets) {
    const v1::TimeSeriesInfo& series = dataset.manifest().time_series();
    table.Add({dataset.name(), KindName(dataset.kind()), FormatCount(dataset.samples()),
               absl::StrCat(series.channels_size()), Lengths(series), absl::StrCat(dataset.manifest().classes_size()),
               FormatSize(dataset.bytes()),
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
