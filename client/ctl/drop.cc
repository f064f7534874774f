// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "absl/strings/str_cat.h"
#include "client/ctl/command.h"

namespace stoker::ctl {
namespace {

ExitCode RunDrop(const Context& context, const std::string& name) {
  const std::string what = absl::StrCat("drop ", name);
  const absl::StatusOr<Client> client = context.Connect();
  if (!client.ok()) return Fail(context.output, what, client.status());
  const absl::StatusOr<v1::DropDatasetReply> reply = client->Drop(name);
  if (!reply.ok()) return Fail(context.output, what, reply.status());
  if (context.output.json) {
    PrintJson(context.output, *reply);
  } else if (!context.output.quiet) {
    context.output.out << "dropped " << name
                       << (reply->store_removed() ? "" : " (its store stays: another data set has the same)")
                       << std::endl;
  }
  return kDone;
}

}  // namespace

void AddDrop(CLI::App& app, Context& context) {
  CLI::App* command = AddCommand(app, "drop", "Forgets a data set, and removes its store; the source is not touched",
                                 "stokerctl drop gunpoint");
  auto name = std::make_shared<std::string>();
  command->add_option("name", *name, "Name of the data set")->required();
  command->callback([&context, name] { context.action = [&context, name] { return RunDrop(context, *name); }; });
}

}  // namespace stoker::ctl
