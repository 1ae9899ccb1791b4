"""From a model to a folder that an application runs it from."""

from onnxq.deploy.deployment import Deployment, Form, deploy
from onnxq.deploy.genai import check_folder

__all__ = ["Deployment", "Form", "check_folder", "deploy"]
