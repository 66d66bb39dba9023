# All images with one command: docker buildx bake           (or `docker buildx bake sm_86`)
#
#   FLASH_ATTN=1 docker buildx bake sm_86 sm_120            flash-attn compiled in: hours
#   IMAGE=registry/meshpress TAG=0.1.0 docker buildx bake --push

variable "IMAGE" { default = "meshpress" }
variable "TAG" { default = "" }
variable "REVISION" { default = "" }
variable "RUNTIME_IMAGE" { default = "ubuntu:24.04" }
variable "COMPILER_IMAGE" { default = "nvidia/cuda:12.8.1-devel-ubuntu24.04" }
variable "FLASH_ATTN" { default = "0" }
variable "NVDIFFRAST" { default = "" }
variable "MAX_JOBS" { default = "2" }

group "default" {
  targets = ["cpu", "sm_75", "sm_86", "sm_120"]
}

target "stack" {
  name       = stack
  matrix     = { stack = ["cpu", "sm_75", "sm_86", "sm_120"] }
  dockerfile = "Dockerfile.gpu"
  platforms  = ["linux/amd64"]
  tags       = ["${IMAGE}:${TAG == "" ? "" : "${TAG}-"}${stack}"]
  args = {
    STACK         = stack
    RUNTIME_IMAGE = RUNTIME_IMAGE
    BUILD_IMAGE   = "${FLASH_ATTN}${NVDIFFRAST}" == "0" || stack == "cpu" ? RUNTIME_IMAGE : COMPILER_IMAGE
    FLASH_ATTN    = stack == "sm_86" || stack == "sm_120" ? FLASH_ATTN : "0"
    NVDIFFRAST    = stack == "cpu" ? "" : NVDIFFRAST
    MAX_JOBS      = MAX_JOBS
    REVISION      = REVISION
  }
}
