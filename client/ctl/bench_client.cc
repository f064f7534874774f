// SPDX-License-Identifier: Apache-2.0
// A client process of `stokerctl bench`. It reads one epoch to warm up and says "ready". For each line that it is told
// it reads one more epoch and says "<bytes> <batches>". It stays connected until its standard input ends.
#include <iostream>
#include <memory>

#include "client/ctl/bench_measure.h"
#include "client/ctl/command.h"
#include "shared/base/status_macros.h"

namespace stoker::ctl {
namespace {

struct BenchClientArguments {
  std::string name;
  uint32_t batch_size = 64;
  uint64_t from_epoch = 0;
  uint64_t epochs = 1;
  bool touch = false;
};

absl::Status Serve(const Context& context, const BenchClientArguments& arguments) {
  STOKER_ASSIGN_OR_RETURN(const Client client, context.Connect());
  LoaderOptions options;
  options.dataset = arguments.name;
  options.recipe.mutable_gaf();
  options.plan.set_batch_size(arguments.batch_size);
  options.start.set_epoch(arguments.from_epoch);
  options.epochs = arguments.epochs + 1;
  STOKER_ASSIGN_OR_RETURN(Loader loader, client.Open(options));
  STOKER_RETURN_IF_ERROR(ReadEpoch(loader, arguments.touch).status());
  context.output.out << "ready" << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
    STOKER_ASSIGN_OR_RETURN(const EpochRead read, ReadEpoch(loader, arguments.touch));
    context.output.out << read.bytes << " " << read.batches << std::endl;
  }
  return absl::OkStatus();
}

}  // namespace

void AddBenchClient(CLI::App& app, Context& context) {
  CLI::App* command = AddCommand(app, "bench-client", "A client process of bench", "stokerctl bench");
  command->group("");  // not shown
  auto arguments = std::make_shared<BenchClientArguments>();
  command->add_option("name", arguments->name)->required();
  command->add_option("--batch-size", arguments->batch_size);
  command->add_option("--from-epoch", arguments->from_epoch);
  command->add_option("--epochs", arguments->epochs);
  command->add_flag("--touch", arguments->touch);
  command->callback([&context, arguments] {
    context.action = [&context, arguments] {
      const absl::Status status = Serve(context, *arguments);
      return status.ok() ? kDone : Fail(context.output, "bench-client", status);
    };
  });
}

}  // namespace stoker::ctl
