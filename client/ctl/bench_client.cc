// SPDX-License-Identifier: Apache-2.0
// A client process of `stokerctl bench`. It reads one epoch to warm up, says "ready", waits for a line, reads its
// epochs, says "<bytes> <batches>", and stays connected until its standard input ends.
#include <iostream>
#include <memory>

#include "client/ctl/command.h"
#include "shared/base/status_macros.h"

namespace stoker::ctl {
namespace {

struct BenchClientArguments {
  std::string name;
  uint32_t batch_size = 64;
  uint64_t from_epoch = 0;
  uint64_t epochs = 1;
};

absl::Status ReadEpochs(Loader& loader, uint64_t epochs, uint64_t* bytes, uint64_t* batches) {
  for (uint64_t ended = 0; ended < epochs;) {
    STOKER_ASSIGN_OR_RETURN(const std::optional<Batch> batch, loader.Next());
    if (!batch.has_value()) {
      ++ended;
      continue;
    }
    ++*batches;
    for (const RawTensor& tensor : batch->tensors()) *bytes += tensor.bytes.size();
  }
  return absl::OkStatus();
}

absl::Status Serve(const Context& context, const BenchClientArguments& arguments) {
  STOKER_ASSIGN_OR_RETURN(const Client client, context.Connect());
  LoaderOptions options;
  options.dataset = arguments.name;
  options.recipe.mutable_gaf();
  options.plan.set_batch_size(arguments.batch_size);
  options.start.set_epoch(arguments.from_epoch);
  options.epochs = arguments.epochs + 1;
  STOKER_ASSIGN_OR_RETURN(Loader loader, client.Open(options));
  uint64_t bytes = 0;
  uint64_t batches = 0;
  STOKER_RETURN_IF_ERROR(ReadEpochs(loader, 1, &bytes, &batches));
  context.output.out << "ready" << std::endl;
  std::string line;
  if (!std::getline(std::cin, line)) return absl::OkStatus();
  bytes = 0;
  batches = 0;
  STOKER_RETURN_IF_ERROR(ReadEpochs(loader, arguments.epochs, &bytes, &batches));
  context.output.out << bytes << " " << batches << std::endl;
  while (std::getline(std::cin, line)) {
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
  command->callback([&context, arguments] {
    context.action = [&context, arguments] {
      const absl::Status status = Serve(context, *arguments);
      return status.ok() ? kDone : Fail(context.output, "bench-client", status);
    };
  });
}

}  // namespace stoker::ctl
