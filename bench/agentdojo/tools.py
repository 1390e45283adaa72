"""What AgentDojo's tools do. This table is the only thing here that knows the suites' names."""

from agentdojo.functions_runtime import Function

from interlock.protocol.tools import EffectClass, ToolSpec

__all__ = ["spec_of"]

_EFFECTS: dict[str, EffectClass] = {
    # mail, calendar, drive
    "send_email": "once",
    "delete_email": "once",  # it goes to the trash
    "create_calendar_event": "once",
    "cancel_calendar_event": "once",
    "reschedule_calendar_event": "idempotent",
    "add_calendar_event_participants": "idempotent",
    "create_file": "once",
    "append_to_file": "once",
    "share_file": "idempotent",
    "delete_file": "irreversible",
    # chat and web
    "add_user_to_channel": "idempotent",
    "send_direct_message": "once",
    "send_channel_message": "once",
    "invite_user_to_slack": "once",
    "remove_user_from_slack": "irreversible",  # the inbox goes with the user
    "post_webpage": "idempotent",
    # bank
    "send_money": "irreversible",
    "schedule_transaction": "once",
    "update_scheduled_transaction": "idempotent",
    "update_password": "idempotent",
    "update_user_info": "idempotent",
    # travel
    "reserve_hotel": "once",
    "reserve_car_rental": "once",
    "reserve_restaurant": "once",
}
"""What is not listed reads."""

_DESTINATIONS: dict[str, tuple[str, ...]] = {
    "send_email": ("recipients", "cc", "bcc"),
    "delete_email": ("email_id",),
    "create_calendar_event": ("participants",),
    "cancel_calendar_event": ("event_id",),
    "reschedule_calendar_event": ("event_id",),
    "add_calendar_event_participants": ("event_id", "participants"),
    "create_file": ("filename",),
    "append_to_file": ("file_id",),
    "share_file": ("email",),
    "delete_file": ("file_id",),
    "add_user_to_channel": ("user", "channel"),
    "send_direct_message": ("recipient",),
    "send_channel_message": ("channel",),
    "invite_user_to_slack": ("user",),
    "remove_user_from_slack": ("user",),
    "get_webpage": ("url",),
    "post_webpage": ("url",),
    "send_money": ("recipient",),
    "schedule_transaction": ("recipient",),
    "update_scheduled_transaction": ("id", "recipient"),
    "reserve_hotel": ("hotel",),
    "reserve_car_rental": ("company",),
    "reserve_restaurant": ("restaurant",),
}

_ALONE = frozenset(
    ("delete_email", "create_file", "append_to_file", "delete_file", "update_password", "update_user_info")
)
"""What changes something that nobody else is told of."""

_NOBODY_ELSE_WRITES = frozenset(("get_current_day", "get_iban", "get_balance"))


def spec_of(suite: str, function: Function) -> ToolSpec:
    """Return a tool as Interlock sees it.

    A tool that reads is taken to reach nobody but the service which holds the user's own data, except for a page of
    the web, whose address reaches whoever runs it.
    """
    name = function.name
    effect = _EFFECTS.get(name, "read")
    return ToolSpec(
        name=f"{suite}.{name}",
        description=function.description,
        parameters=function.parameters.model_json_schema(),
        effect=effect,
        network=name == "get_webpage" if effect == "read" else name not in _ALONE,
        outside=name not in _NOBODY_ELSE_WRITES,
        destinations=_DESTINATIONS.get(name, ()),
    )
