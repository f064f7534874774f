// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "client/ctl/command.h"
#include "client/ctl/crystal_picture.h"
#include "client/ctl/picture.h"
#include "client/ctl/stream_options.h"
#include "shared/base/option_checks.h"
#include "shared/base/posix.h"
#include "shared/base/status_macros.h"

namespace stoker::ctl {
namespace {

struct PreviewArguments {
  std::string name;
  RecipeArguments recipe;
  std::string out;
  uint32_t samples = 4;
  uint32_t channels = 4;
  bool shuffle = false;
  uint64_t seed = 0;
};

absl::StatusOr<Picture> Draw(const Context& context, const PreviewArguments& arguments) {
  LoaderOptions options;
  options.dataset = arguments.name;
  STOKER_ASSIGN_OR_RETURN(options.recipe, MakeRecipe(arguments.recipe));
  options.plan.set_batch_size(arguments.samples);
  options.plan.set_shuffle(arguments.shuffle);
  options.plan.set_seed(arguments.seed);
  options.epochs = 1;
  options.prefetch = 1;
  STOKER_ASSIGN_OR_RETURN(const Client client, context.Connect());
  STOKER_ASSIGN_OR_RETURN(Loader loader, client.Open(options));
  STOKER_ASSIGN_OR_RETURN(const std::optional<Batch> batch, loader.Next());
  if (!batch.has_value()) return absl::NotFoundError("the data set has no batches");
  STOKER_ASSIGN_OR_RETURN(Picture picture, loader.info().kind() == v1::CRYSTALS
                                               ? CrystalSheet(*batch, arguments.samples)
                                               : ContactSheet(*batch, arguments.samples, arguments.channels));
  STOKER_RETURN_IF_ERROR(batch->Check());
  return picture;
}

absl::Status Write(const Picture& picture, const std::string& path) {
  STOKER_ASSIGN_OR_RETURN(const std::string png, picture.EncodePng());
  std::error_code error;
  const std::filesystem::path target = std::filesystem::weakly_canonical(path, error);  // not the link to it
  if (error) return ErrnoStatus(error.value(), "write", path);
  if (std::filesystem::exists(target) && !std::filesystem::is_regular_file(target)) {
    return absl::FailedPreconditionError(absl::StrCat("write: ", path, ": is there and no regular file"));
  }
  return WriteFileAtomically(target, png);
}

ExitCode RunPreview(const Context& context, const PreviewArguments& arguments) {
  const std::string what = absl::StrCat("preview ", arguments.name);
  const absl::StatusOr<Picture> picture = Draw(context, arguments);
  if (!picture.ok()) return Fail(context.output, what, picture.status());
  if (const absl::Status status = Write(*picture, arguments.out); !status.ok()) {
    return Fail(context.output, what, status);
  }
  if (context.output.json) {
    context.output.out << "{\"width\": " << picture->width() << ", \"height\": " << picture->height() << "}"
                       << std::endl;
  } else if (!context.output.quiet) {
    context.output.out << arguments.out << ": " << picture->width() << " x " << picture->height() << std::endl;
  }
  return kDone;
}

}  // namespace

void AddPreview(CLI::App& app, Context& context) {
  CLI::App* command =
      AddCommand(app, "preview", "A picture of one batch: images of each channel, or crystal structures",
                 "stokerctl preview walks --image-size 48 --out walks.png");
  auto arguments = std::make_shared<PreviewArguments>();
  command->add_option("name", arguments->name, "Name of the data set")->required();
  command->add_option("--out", arguments->out, "The PNG to write")->required();
  command->add_option("--samples", arguments->samples, "At most so many samples")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command->add_option("--channels", arguments->channels, "At most so many channels of each")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command->add_flag("--shuffle", arguments->shuffle, "Samples from all over the data set, not the first ones");
  command->add_option("--seed", arguments->seed, "Of the shuffle (default: 0)")->check(AtLeastZero());
  AddRecipeOptions(command, &arguments->recipe);
  command->callback(
      [&context, arguments] { context.action = [&context, arguments] { return RunPreview(context, *arguments); }; });
}

}  // namespace stoker::ctl
