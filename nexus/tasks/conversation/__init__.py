"""Conversation: questions about images, answered in words."""

from nexus.tasks.conversation.answer import Answer
from nexus.tasks.conversation.chat import chat
from nexus.tasks.conversation.session import Chat, Writing
from nexus.tasks.conversation.task import ConversationTask

TASK = ConversationTask
COMMANDS = {"chat": chat}

__all__ = ["COMMANDS", "TASK", "Answer", "Chat", "ConversationTask", "Writing"]
